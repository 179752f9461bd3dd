import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Config } from '../config/config.js';
import { chooseLayout, findLayout, HostLayout, layoutsOf, type MeasuredLayout } from './host-layout.js';
import { machine } from './machine.js';
import { KeptMeasurements } from './measurements.js';
import { fileDigest } from './bundle.js';

it('tries every use of all cores, as far as memory goes', () => {
  expect(layoutsOf('cpu', 1, 10)).toEqual([new HostLayout(1, 1)]);
  expect(layoutsOf('cpu', 2, 10)).toEqual([new HostLayout(1, 2), new HostLayout(2, 1)]);
  expect(layoutsOf('cpu', 12, 8)).toEqual([1, 2, 4, 8].map((n) => new HostLayout(n, Math.floor(12 / n))));
  expect(layoutsOf('cpu', 16, 0)).toEqual([new HostLayout(1, 16)]);
  expect(layoutsOf('cuda:1', 16, 10)).toEqual([new HostLayout(1, 1), new HostLayout(2, 1)]);
  expect(layoutsOf('cuda:0,1', 16, 10)).toEqual([new HostLayout(2, 1), new HostLayout(4, 1)]);
});

it('takes more hosts only where they are clearly faster', () => {
  const measured = (one: number, two: number) => [
    { hosts: 1, threads: 2, tokensPerSecond: one },
    { hosts: 2, threads: 1, tokensPerSecond: two },
  ];
  expect(chooseLayout(measured(100, 104))).toEqual(new HostLayout(1, 2));
  expect(chooseLayout(measured(100, 120))).toEqual(new HostLayout(2, 1));
  expect(chooseLayout(measured(120, 100))).toEqual(new HostLayout(1, 2));
});

describe('the layout of this process', () => {
  let dataDir: string;
  let config: Config;

  /** Keeps a measurement of as many hosts. */
  async function keep(most: number, measured: MeasuredLayout): Promise<void> {
    const key = [await fileDigest(join(dataDir, 'model.onnx')), await machine('cpu'), `at most ${most} hosts`];
    await new KeptMeasurements(join(dataDir, 'host-layouts.json')).keep(key.join(' | '), [measured]);
  }

  beforeEach(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'layouts-'));
    await writeFile(join(dataDir, 'model.onnx'), 'a graph');
    config = Config.load({}).with({ dataDir, baseModel: dataDir });
  });
  afterEach(() => rm(dataDir, { recursive: true }));

  it('goes by the settings where they say it', async () => {
    expect(await findLayout(config.with({ hosts: 3 }))).toEqual(new HostLayout(3, 1));
    expect(await findLayout(config.with({ hosts: 3, hostThreads: 2 }))).toEqual(new HostLayout(3, 2));
    expect(await findLayout(config.with({ hostThreads: 64 }))).toEqual(new HostLayout(1, 64));
  });

  const cores = availableParallelism();
  it.skipIf(cores === 1)('goes by what was measured here before with as many hosts as memory allows', async () => {
    await keep(cores, { hosts: cores, threads: 7, tokensPerSecond: 1 });
    await keep(1, { hosts: 1, threads: 8, tokensPerSecond: 1 });
    expect(await findLayout(config.with({ modelMemoryMb: 1_000_000 }))).toEqual(new HostLayout(cores, 7));
    expect(await findLayout(config.with({ modelMemoryMb: 1 }))).toEqual(new HostLayout(1, 8));
  });
});
