/** Graphs made ready for this machine, with the base model's, whose weights are worth it. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, open, readdir, rm, stat, utimes } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ALIGNMENT, offsetsOf } from '../../src/runtime/align-weights.js';
import { HostPool, type GraphFile, type HostLease } from '../../src/runtime/host-pool.js';
import { measuredBytes } from '../../src/runtime/host-memory.js';
import { PackedGraphs } from '../../src/runtime/packed-graphs.js';
import { graphBatch } from '../fixtures/graph-batch.js';

const BASE = join(import.meta.dirname, '../../models/base-zh/model.onnx');
const SMALL = join(import.meta.dirname, '../fixtures/tiny-model/model.onnx');
const MB = 2 ** 20;
const DAY_MS = 86_400_000;

const sha256 = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');
const graphOf = (path: string): GraphFile => ({ id: 'g0', path, sha256: sha256(path) });
const base = graphOf(BASE);

let folder: string;
const pools: HostPool[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fewloop-packed-'));
});
afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.close()));
  await rm(folder, { recursive: true });
});

const packs = (machine = 'here') => new PackedGraphs(join(folder, 'packed'), machine);

async function opened(packed?: PackedGraphs, graph = base): Promise<HostLease> {
  const pool = new HostPool({ hosts: 2, threads: 1, device: 'cpu', packed });
  pools.push(pool);
  return pool.open([graph]);
}

/** What two hosts answer: each has one of two batches. */
async function answers(lease: HostLease): Promise<Float32Array[]> {
  const batches = [graphBatch('g0', 3, 40, 1), graphBatch('g0', 5, 17, 2)];
  const results = await Promise.all(batches.map((batch) => lease.run(batch)));
  return results.flatMap(({ logits, embeddings }) => [logits, embeddings]);
}

const packedFolders = () => readdir(join(folder, 'packed'));
const mapsWeights = (pid: number) => readFileSync(`/proc/${pid}/maps`, 'utf8').includes(join(folder, 'packed'));

it('hosts share the weights of one file, and answer the same', async () => {
  const plain = await opened();
  const shared = await opened(packs());
  expect(await answers(shared)).toEqual(await answers(plain));
  expect(shared.pids().map(mapsWeights)).toEqual([true, true]);
  expect(plain.pids().map(mapsWeights)).toEqual([false, false]);
  // Of the base model's weights 50 MB are products' and packed; of its embeddings each has what it looked up.
  const [before, now] = [await measuredBytes(plain.pids()), await measuredBytes(shared.pids())];
  expect(before! - now!).toBeGreaterThan(100 * MB);
});

it('begins each weight where the widest vectors may', async () => {
  const [ready] = await packs().of([base]);
  const offsets = offsetsOf(readFileSync(ready!.packed!));
  expect(offsets.length).toBeGreaterThan(50);
  expect(offsets.filter((offset) => offset % ALIGNMENT !== 0)).toEqual([]);
  expect(new Set(offsets).size).toBe(offsets.length);
});

it('packs a graph once for each machine, whoever asks, and whatever asks at once', async () => {
  const [one, other] = [packs(), packs()];
  await Promise.all([one.of([base]), one.of([base]), other.of([base])]);
  const [name, ...others] = await packedFolders();
  expect(others).toEqual([]);
  const weights = join(folder, 'packed', name!, 'weights.bin');
  const made = await stat(weights);
  expect(await packs().of([base])).toEqual([{ ...base, packed: join(dirname(weights), 'model.onnx') }]);
  expect((await stat(weights)).ino).toBe(made.ino);
  await packs('another processor').of([base]);
  expect(await packedFolders()).toHaveLength(2);
});

it('packs anew what is no longer what was packed', async () => {
  await packs().of([base]);
  const [name] = await packedFolders();
  const weights = join(folder, 'packed', name!, 'weights.bin');
  const before = sha256(weights);
  const file = await open(weights, 'r+');
  await file.write(Buffer.from('damaged'), 0, 7, 50 * MB);
  await file.close();
  expect(sha256(weights)).not.toBe(before);
  expect(await packs().of([base])).toMatchObject([{ packed: join(dirname(weights), 'model.onnx') }]);
  expect(sha256(weights)).toBe(before);
  expect(await packedFolders()).toEqual([name]);
});

it('opens the graph itself where it cannot be packed, or the packed one has gone', async () => {
  // A file where the folder would be, as on a disk that takes nothing.
  await copyFile(SMALL, join(folder, 'packed'));
  const lease = await opened(packs());
  expect(lease.pids().map(mapsWeights)).toEqual([false, false]);
  const expected = await answers(lease);
  await rm(join(folder, 'packed'));

  const packed = packs();
  const [ready] = await packed.of([base]);
  await rm(ready!.packed!);
  const again = await opened({ of: async () => [ready!] } as unknown as PackedGraphs);
  expect(await answers(again)).toEqual(expected);
});

it('leaves small graphs as they are', async () => {
  const small = graphOf(SMALL);
  expect(await packs().of([small])).toEqual([small]);
  await expect(packedFolders()).rejects.toThrow(/ENOENT/u);
});

it('removes what nobody has opened for a month, and what a killed process left', async () => {
  const at = (days: number) => new Date(Date.now() - days * DAY_MS);
  for (const [name, days] of Object.entries({ old: 31, recent: 29, 'a.partial': 2, 'b.partial': 0.5 })) {
    await mkdir(join(folder, 'packed', name), { recursive: true });
    await utimes(join(folder, 'packed', name), at(days), at(days));
  }
  const packed = packs();
  const [ready] = await packed.of([base]);
  const own = dirname(ready!.packed!);
  expect((await packedFolders()).map((name) => join(folder, 'packed', name)).sort()).toEqual(
    [own, join(folder, 'packed/recent'), join(folder, 'packed/b.partial')].sort(),
  );
  await utimes(own, at(40), at(40));
  await packed.of([base]);
  expect((await stat(own)).mtimeMs).toBeGreaterThan(Date.now() - DAY_MS);
});
