/**
 * Puts a backup back, where there is nothing yet: all of it or nothing. Every file is held to its digest before the
 * database is touched; files are made ready in a folder of their own and renamed when all rows are in, and the rows are
 * committed after that, so that none names what is not there. Imports of other modules: registry, storage.
 */
import { existsSync } from 'node:fs';
import { copyFile, mkdir, rename, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { createGunzip } from 'node:zlib';
import type { Config } from '../config/config.js';
import { copyBundle } from '../registry/bundle-copy.js';
import { restoreDatabase } from '../storage/database-copy.js';
import { startEmbeddedPostgres } from '../storage/embedded-postgres.js';
import type { Say } from './backup.js';
import { isIntact, readFrom } from './files.js';
import { altered, readContents, refused, summaryOf, type BackupContents, type Summary } from './format.js';

const STAGING = 'restoring';
const PARTS = ['bundles', 'runs'];

/**
 * Into the data folder and the database that are configured. `digest`: what `makeBackup` said, where that was kept
 * elsewhere. Throws BAD_INPUT where the backup is not whole or not what it was, or something is there already.
 */
export async function restoreBackup(
  config: Config,
  source: string,
  say: Say,
  { digest }: { digest?: string } = {},
): Promise<Summary> {
  const folder = resolve(source);
  const found = await readContents(folder);
  if (digest !== undefined && digest !== found.digest) {
    throw refused(`${folder} is the backup ${found.digest}, not ${digest}`);
  }
  const embedded = config.databaseUrl === '';
  for (const part of [...PARTS, ...(embedded ? ['postgres'] : [])]) {
    if (existsSync(join(config.dataDir, part))) {
      throw refused(`${join(config.dataDir, part)} is there already: restore into an empty data folder`);
    }
  }
  await verifyFiles(folder, found.contents);
  const staging = join(config.dataDir, STAGING);
  await rm(staging, { recursive: true, force: true }); // left by one that was killed
  await mkdir(staging, { recursive: true });
  try {
    const bundleBytes = await stageFiles(folder, found.contents, staging);
    say(`files: ${found.contents.bundles.length} bundles, whole`);
    await (embedded
      ? fillEmbedded(config, folder, found.contents, staging)
      : fill(config.databaseUrl, config, folder, found.contents, staging));
    say(`database: ${found.contents.tables.length} tables`);
    return summaryOf(folder, found.digest, found.contents, bundleBytes);
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

async function verifyFiles(folder: string, { tables, files }: BackupContents): Promise<void> {
  for (const file of [...tables, ...files]) if (!(await isIntact(folder, file))) throw altered(folder, file.file);
}

/** Resolves to the bytes of bundles. */
async function stageFiles(folder: string, { bundles, files }: BackupContents, staging: string): Promise<number> {
  let bytes = 0;
  for (const part of PARTS) await mkdir(join(staging, part));
  for (const { folder: bundle, digest } of bundles) {
    const from = join(folder, bundle);
    const tell = (more: number) => void (bytes += more);
    await copyBundle((file) => readFrom(join(from, file)), digest, join(staging, bundle), tell).catch(
      (cause: unknown) => {
        throw refused(`${from} is not what was backed up: ${(cause as Error).message}`, cause);
      },
    );
  }
  for (const { file } of files) {
    await mkdir(dirname(join(staging, file)), { recursive: true });
    await copyFile(join(folder, file), join(staging, file));
  }
  return bytes;
}

async function fillEmbedded(config: Config, folder: string, contents: BackupContents, staging: string): Promise<void> {
  const dir = join(staging, 'postgres');
  const server = await startEmbeddedPostgres({ dir });
  try {
    await fill(server.url, config, folder, contents, staging);
  } finally {
    await server.stop();
  }
  await rename(dir, join(config.dataDir, 'postgres'));
}

async function fill(
  url: string,
  { dataDir }: Config,
  folder: string,
  contents: BackupContents,
  staging: string,
): Promise<void> {
  const file = new Map(contents.tables.map((table) => [table.table, table.file]));
  const read = async (table: string) => (await readFrom(join(folder, file.get(table)!))).pipe(createGunzip());
  const placed: string[] = [];
  try {
    await restoreDatabase(
      url,
      contents,
      ({ table }) => read(table),
      async () => {
        for (const part of PARTS) {
          await rename(join(staging, part), join(dataDir, part));
          placed.push(part);
        }
      },
    );
  } catch (error) {
    for (const part of placed) await rm(join(dataDir, part), { recursive: true, force: true });
    throw error;
  }
}
