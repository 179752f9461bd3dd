/** The files of a bundle, as its manifest names them. */
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { BundleFile, BundleManifest } from './manifest.js';

/** A writer that has not touched its files for so long was killed. */
const ABANDONED_MS = 3_600_000;

/** All but the manifest itself, each once. Throws an Error that names a path which leaves the bundle's folder. */
export function filesOf({ tokenizer, golden, report, graphs, members }: BundleManifest): BundleFile[] {
  const named = [
    ...graphs.filter(({ base }) => !base),
    ...graphs.flatMap(({ variants = [] }) => variants),
    ...members.flatMap(({ shortlist }) => (shortlist ? [shortlist.embeddings] : [])),
    tokenizer,
    golden,
    report,
  ];
  const files = new Map<string, string>();
  for (const { file, sha256 } of named) {
    if (!isConfined(file)) throw new Error(`${file} leaves the bundle's folder`);
    if ((files.get(file) ?? sha256) !== sha256) throw new Error(`it has two digests for ${file}`);
    files.set(file, sha256);
  }
  return [...files].map(([file, sha256]) => ({ file, sha256 }));
}

/** Relative, and of plain names alone, whatever system reads it. */
function isConfined(file: string): boolean {
  return file.split('/').every((name) => !['', '.', '..'].includes(name) && !/[\\:\0]/u.test(name));
}

/** Removes folders of `parent` with that beginning that a killed process has left. */
export async function removeAbandoned(parent: string, beginning: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (!name.startsWith(beginning)) continue;
    const folder = join(parent, name);
    const files = await readdir(folder, { recursive: true }).catch(() => []);
    const times = await Promise.all(
      ['.', ...files].map((file) =>
        stat(join(folder, file)).then(
          ({ mtimeMs }) => mtimeMs,
          () => 0,
        ),
      ),
    );
    if (Date.now() - Math.max(...times) > ABANDONED_MS) await rm(folder, { recursive: true, force: true });
  }
}
