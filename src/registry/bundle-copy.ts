/** A bundle from wherever it is into a folder, every file held to its digest on the way; the manifest comes last. */
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { digest, parseManifest } from './bundle.js';
import { filesOf } from './bundle-files.js';
import { MANIFEST } from './bundle-store.js';
import type { BundleFile } from './manifest.js';

/** A manifest is read whole. */
const MAX_MANIFEST_BYTES = 64 * 2 ** 20;

/** A file is not the one whose digest was registered. */
export class AlteredFile extends Error {
  constructor(readonly file: string) {
    super(`${file} is not what it was`);
  }
}

export type ReadFile = (file: string) => Promise<Readable>;

/**
 * `expected`: the bundle's digest. `tell`: is told how many bytes came. Throws AlteredFile; BUNDLE_INVALID where the
 * manifest is none; an Error where one of its paths leaves the folder; and what `read` throws. What it has written until
 * then is the caller's to remove.
 */
export async function copyBundle(
  read: ReadFile,
  expected: string,
  folder: string,
  tell: (bytes: number) => void = () => undefined,
): Promise<void> {
  const manifest = await readManifestBytes(await read(MANIFEST));
  if (digest(manifest) !== expected) throw new AlteredFile(MANIFEST);
  const files = filesOf(parseManifest(manifest));
  await mkdir(folder, { recursive: true });
  for (const file of files) await copyFile(read, file, folder, tell);
  await writeFile(join(folder, MANIFEST), manifest, { flush: true });
}

async function readManifestBytes(source: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of source) {
    chunks.push(chunk as Buffer);
    bytes += (chunk as Buffer).length;
    if (bytes > MAX_MANIFEST_BYTES) break;
  }
  return Buffer.concat(chunks);
}

async function copyFile(
  read: ReadFile,
  { file, sha256 }: BundleFile,
  folder: string,
  tell: (bytes: number) => void,
): Promise<void> {
  const path = join(folder, file);
  await mkdir(dirname(path), { recursive: true });
  const hash = createHash('sha256');
  const source = await read(file);
  source.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    tell(chunk.length);
  });
  await pipeline(source, createWriteStream(path, { flush: true }));
  if (hash.digest('hex') !== sha256) throw new AlteredFile(file);
}
