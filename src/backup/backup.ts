/**
 * Makes a backup of what a service keeps, while it runs: one moment of the database, then the bundles that its rows
 * name (a bundle is there before its row, and never changes or goes, so that none can be lacking), then the data of
 * training runs. Reads the data folder and the database; needs no service. Imports of other modules: registry, storage.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { createGzip } from 'node:zlib';
import type { Config } from '../config/config.js';
import { copyBundle } from '../registry/bundle-copy.js';
import { openBundleStore } from '../registry/open-store.js';
import { DatabaseSnapshot, type CopiedVersion } from '../storage/database-copy.js';
import { runningUrl, startEmbeddedPostgres } from '../storage/embedded-postgres.js';
import { readFrom, writeHashed } from './files.js';
import { refused, summaryOf, writeContents, type BackupContents, type BackupFile, type Summary } from './format.js';

/** What a later gate asks of a run, and what it could be repeated from; checkpoints and logs are left out. */
const RUN_FILES = ['run.json', 'labelled.jsonl', 'unlabelled.jsonl'];

export type Say = (line: string) => void;

/**
 * `target` must not be there, or be empty. `without`: versions (`task/version`) whose bundles are left out, because their
 * files are gone; their rows are kept. Throws BAD_INPUT where `target` is there, something that is to be kept is lacking,
 * or `without` names what is not there or answers.
 */
export async function makeBackup(
  config: Config,
  target: string,
  say: Say,
  { without = [] }: { without?: string[] } = {},
): Promise<Summary> {
  const folder = resolve(target);
  if (existsSync(folder) && (await readdir(folder)).length > 0) {
    throw refused(`${folder} is not empty: name a folder that is not there yet`);
  }
  const partial = `${folder}.partial`;
  await rm(partial, { recursive: true, force: true }); // left by one that was killed
  await mkdir(dirname(folder), { recursive: true });
  await mkdir(partial, { mode: 0o700 }); // it holds texts
  const database = await openDatabase(config);
  try {
    const { contents, versions } = await copyDatabase(database.url, partial, say);
    contents.bundles = leaveOut(versions, without);
    const bundleBytes = await copyBundles(config, contents.bundles, partial, say);
    contents.files = await copyRuns(config.dataDir, partial);
    const digest = await writeContents(partial, contents);
    await rename(partial, folder);
    return summaryOf(folder, digest, contents, bundleBytes);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  } finally {
    await database.stop();
  }
}

/** The one that is configured, the running service's own, or that of the data folder, started for as long as it takes. */
async function openDatabase({ databaseUrl, dataDir }: Config): Promise<{ url: string; stop(): Promise<void> }> {
  const stop = () => Promise.resolve();
  if (databaseUrl !== '') return { url: databaseUrl, stop };
  const dir = join(dataDir, 'postgres');
  const url = runningUrl(dir);
  if (url !== undefined) return { url, stop };
  if (!existsSync(join(dir, 'PG_VERSION'))) {
    throw refused(`${dataDir} has no database: set FEWLOOP_DATA_DIR or DATABASE_URL as for the service`);
  }
  return startEmbeddedPostgres({ dir });
}

async function copyDatabase(
  url: string,
  folder: string,
  say: Say,
): Promise<{ contents: BackupContents; versions: CopiedVersion[] }> {
  const snapshot = await DatabaseSnapshot.open(url);
  try {
    const contents: BackupContents = {
      formatVersion: 1,
      createdAt: new Date().toISOString(),
      ...(await snapshot.state()),
      tables: [],
      bundles: [],
      files: [],
    };
    for (const table of await snapshot.tables()) {
      const rows = await snapshot.read(table);
      const file = await writeHashed(rows, folder, `database/${table.table}.copy.gz`, createGzip());
      contents.tables.push({ ...table, ...file, rows: rows.rowCount });
    }
    say(`database: ${contents.tables.length} tables`);
    return { contents, versions: await snapshot.versions() };
  } finally {
    await snapshot.close();
  }
}

const ANSWERING = new Set<CopiedVersion['state']>(['ACTIVE', 'CANARY']);

function leaveOut(versions: CopiedVersion[], without: string[]): BackupContents['bundles'] {
  const named = new Map(versions.map((one) => [`${one.task}/${one.version}`, one]));
  for (const name of without) {
    const version = named.get(name);
    if (!version) throw refused(`--without ${name}: there is no such version (TASK/VERSION)`);
    if (ANSWERING.has(version.state)) {
      throw refused(`--without ${name}: it is ${version.state}, and a backup without it would answer nothing`);
    }
    named.delete(name);
  }
  return [...named.values()].map(({ task, version, folder, digest }) => ({ task, version, folder, digest }));
}

/** Resolves to their bytes. */
async function copyBundles(
  config: Config,
  versions: BackupContents['bundles'],
  folder: string,
  say: Say,
): Promise<number> {
  const store = await openBundleStore(config);
  let bytes = 0;
  const tell = (more: number) => void (bytes += more);
  for (const version of versions) {
    const own = join(config.dataDir, version.folder);
    const into = join(folder, version.folder);
    try {
      await copyBundle((file) => readFrom(join(own, file)), version.digest, into, tell).catch(
        async (error: unknown) => {
          if (!store) throw error;
          await rm(into, { recursive: true, force: true });
          await copyBundle((file) => store.read(version, file), version.digest, into, tell);
        },
      );
    } catch (cause) {
      const where = store ? `${own} and ${store.name}` : own;
      const text = `version ${version.version} of ${version.task} is not whole in ${where}: ${(cause as Error).message}`;
      const mend = `put its files back, or leave it out by --without ${version.task}/${version.version}`;
      throw refused(`nothing was backed up: ${text}; ${mend}`, cause);
    }
    say(`bundle of version ${version.version} of ${version.task}`);
  }
  return bytes;
}

async function copyRuns(dataDir: string, folder: string): Promise<BackupFile[]> {
  const parent = join(dataDir, 'runs');
  const files: BackupFile[] = [];
  const list = (path: string) => readdir(path).catch(() => [] as string[]);
  for (const task of await list(parent)) {
    for (const run of await list(join(parent, task))) {
      // The settings come last when a run is prepared: a folder without them is made anew.
      if (!existsSync(join(parent, task, run, 'run.json'))) continue;
      for (const name of RUN_FILES) {
        const path = join('runs', task, run, name);
        if (!existsSync(join(dataDir, path))) continue; // erased for its age (learning/retention.ts)
        files.push(await writeHashed(await readFrom(join(dataDir, path)), folder, path));
      }
    }
  }
  return files;
}
