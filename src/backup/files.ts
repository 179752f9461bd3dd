/** Reading and writing the files of a backup. */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Transform, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { BackupFile } from './format.js';

/** Fails at once where there is no such file. */
export async function readFrom(path: string): Promise<Readable> {
  const handle = await open(path);
  return handle.createReadStream({ highWaterMark: 1 << 20 });
}

/** Writes what comes, by `through` where it is given (gzip, say), and says what was written. */
export async function writeHashed(
  source: Readable,
  folder: string,
  file: string,
  through?: Transform,
): Promise<BackupFile> {
  await mkdir(dirname(join(folder, file)), { recursive: true });
  const hash = createHash('sha256');
  let bytes = 0;
  const counted = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      bytes += chunk.length;
      done(null, chunk);
    },
  });
  const out = createWriteStream(join(folder, file), { flush: true });
  await (through ? pipeline(source, through, counted, out) : pipeline(source, counted, out));
  return { file, bytes, sha256: hash.digest('hex') };
}

/** Whether the file is there and is that one. */
export async function isIntact(folder: string, { file, bytes, sha256 }: BackupFile): Promise<boolean> {
  const hash = createHash('sha256');
  let found = 0;
  try {
    for await (const chunk of createReadStream(join(folder, file), { highWaterMark: 1 << 20 })) {
      hash.update(chunk as Buffer);
      found += (chunk as Buffer).length;
    }
  } catch {
    return false;
  }
  return found === bytes && hash.digest('hex') === sha256;
}
