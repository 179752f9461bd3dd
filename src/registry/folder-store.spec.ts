import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeBundleStore } from '../../test/fixtures/bundle-stores.js';
import { writeTinyBundle } from '../../test/fixtures/bundle.js';
import { filesOf } from './bundle-files.js';
import { FolderStore } from './folder-store.js';

let root: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'fewloop-store-'));
});
afterAll(() => rm(root, { recursive: true }));

describe('FolderStore', () => {
  describeBundleStore(async () => ({
    store: new FolderStore(root),
    async write(path, bytes) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), bytes);
    },
  }));

  it('two that put the same bundle at once leave one, and what one has abandoned goes', async () => {
    const source = join(root, 'source');
    const manifest = await writeTinyBundle(source);
    const store = new FolderStore(join(root, 'own'));
    const [old, fresh] = ['old', 'fresh'].map((name) => join(root, 'own/tiny', `.partial-${name}`));
    for (const folder of [old!, fresh!]) await mkdir(folder, { recursive: true });
    await utimes(old!, 1, 1);
    const bundle = { task: 'tiny', digest: 'd'.repeat(64) };
    const put = () => store.put(bundle, source, filesOf(manifest), () => undefined);
    await Promise.all([put(), put(), put()]);
    expect((await readdir(join(root, 'own/tiny'))).sort()).toEqual(['.partial-fresh', bundle.digest]);
  });
});
