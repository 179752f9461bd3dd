/** A bundle store in a folder, of one machine or shared by several: a bundle is written aside, then renamed. */
import { randomUUID } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { MANIFEST, type BundleStore, type StoredBundle } from './bundle-store.js';
import { removeAbandoned } from './bundle-files.js';
import type { BundleFile } from './manifest.js';

const PARTIAL = '.partial-';

export class FolderStore implements BundleStore {
  readonly name: string;

  constructor(folder: string) {
    this.name = resolve(folder);
  }

  async check(): Promise<void> {
    await mkdir(this.name, { recursive: true });
    await readdir(this.name);
  }

  async has(bundle: StoredBundle): Promise<boolean> {
    return isThere(join(this.#folderOf(bundle), MANIFEST));
  }

  async put(bundle: StoredBundle, folder: string, files: BundleFile[], tell: (bytes: number) => void): Promise<void> {
    if (await this.has(bundle)) return;
    const target = this.#folderOf(bundle);
    const parent = dirname(target);
    await mkdir(parent, { recursive: true });
    await removeAbandoned(parent, PARTIAL);
    const partial = join(parent, `${PARTIAL}${randomUUID()}`);
    try {
      for (const file of [...files.map((entry) => entry.file), MANIFEST]) {
        await copyDurably(join(folder, file), join(partial, file), tell);
      }
      await rename(partial, target);
      await syncFolder(parent);
    } catch (error) {
      // Another process may have been quicker, with the same bytes.
      if (!(await this.has(bundle))) throw error;
    } finally {
      await rm(partial, { recursive: true, force: true });
    }
  }

  async read(bundle: StoredBundle, file: string): Promise<Readable> {
    const handle = await open(join(this.#folderOf(bundle), file));
    return handle.createReadStream({ highWaterMark: 1 << 20 });
  }

  #folderOf({ task, digest }: StoredBundle): string {
    return join(this.name, task, digest);
  }
}

/** On the disk when it resolves: after a power cut a name must not stand for less. */
async function copyDurably(from: string, to: string, tell: (bytes: number) => void): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  const source = createReadStream(from, { highWaterMark: 1 << 20 });
  source.on('data', (chunk) => tell(chunk.length));
  await pipeline(source, createWriteStream(to, { flush: true }));
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false;
      throw error;
    },
  );
}
