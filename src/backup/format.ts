/**
 * A backup is a folder. `backup.json` says what must be in it, to the byte, and `backup.json.sha256` what that file is (as
 * `sha256sum -c` reads it). Both come last, and the folder gets its name when it is whole.
 *
 *   backup.json, backup.json.sha256, database/<table>.copy.gz, bundles/<task>/<version>/…, runs/<task>/<run>/…
 */
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { FewloopError } from '../common/errors.js';

const BACKUP_FORMAT_VERSION = 1;
export const BACKUP_FILE = 'backup.json';
const SUM_FILE = `${BACKUP_FILE}.sha256`;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/u);
/** Plain names alone: what a backup says must not lead out of its folder. */
const path = z.string().regex(/^[\w-][\w.-]*(\/[\w-][\w.-]*)*$/u);
const file = z.object({ file: path, bytes: z.int().min(0), sha256 });

const schema = z.object({
  formatVersion: z.literal(BACKUP_FORMAT_VERSION),
  createdAt: z.string(),
  migrations: z.array(z.string()),
  sequences: z.record(z.string(), z.string().nullable()),
  tables: z.array(file.extend({ table: z.string(), columns: z.array(z.string()), rows: z.int().min(0) })),
  /** `folder`: as in the data folder. `digest`: of its manifest. */
  bundles: z.array(z.object({ task: z.string(), version: z.int(), folder: path, digest: sha256 })),
  /** Of runs. */
  files: z.array(file),
});

export type BackupContents = z.output<typeof schema>;
export type BackupFile = z.output<typeof file>;

export interface Summary {
  folder: string;
  /** SHA-256 of backup.json, and with it of the whole backup. */
  digest: string;
  tables: number;
  rows: number;
  bundles: number;
  runs: number;
  bytes: number;
}

export function summaryOf(folder: string, digest: string, contents: BackupContents, bundleBytes: number): Summary {
  const { tables, bundles, files } = contents;
  return {
    folder,
    digest,
    tables: tables.length,
    rows: tables.reduce((sum, { rows }) => sum + rows, 0),
    bundles: bundles.length,
    runs: new Set(files.map((one) => one.file.split('/').slice(0, 3).join('/'))).size,
    bytes: [...tables, ...files].reduce((sum, { bytes }) => sum + bytes, bundleBytes),
  };
}

export function refused(what: string, cause?: unknown): FewloopError {
  return new FewloopError('BAD_INPUT', what, { cause });
}

/** Resolves to its digest. */
export async function writeContents(folder: string, contents: BackupContents): Promise<string> {
  const bytes = JSON.stringify(contents, null, 2);
  const digest = createHash('sha256').update(bytes).digest('hex');
  await writeFile(join(folder, BACKUP_FILE), bytes, { flush: true });
  await writeFile(join(folder, SUM_FILE), `${digest}  ${BACKUP_FILE}\n`, { flush: true });
  return digest;
}

/** Throws where the folder is no backup, or not one that was finished, or its list was altered. */
export async function readContents(folder: string): Promise<{ contents: BackupContents; digest: string }> {
  const read = (name: string) =>
    readFile(join(folder, name), 'utf8').catch((cause: unknown) => {
      throw refused(`${folder} is no whole backup: it has no ${name}`, cause);
    });
  const [bytes, sum] = [await read(BACKUP_FILE), await read(SUM_FILE)];
  const digest = createHash('sha256').update(bytes).digest('hex');
  if (sum.split(' ')[0] !== digest) throw altered(folder, BACKUP_FILE);
  const { formatVersion } = JSON.parse(bytes) as { formatVersion?: unknown };
  if (formatVersion !== BACKUP_FORMAT_VERSION) {
    throw refused(`${folder}: its format is ${String(formatVersion)}; this release reads ${BACKUP_FORMAT_VERSION}`);
  }
  const parsed = schema.safeParse(JSON.parse(bytes));
  if (!parsed.success) throw refused(`${folder}: ${BACKUP_FILE}: ${parsed.error.issues[0]?.message}`, parsed.error);
  return { contents: parsed.data, digest };
}

export function altered(folder: string, name: string): FewloopError {
  return refused(`${folder}: ${name} is not what was backed up; take another backup`);
}
