import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MemoryRunner } from '../../test/fixtures/memory-model.js';
import type { Config } from '../config/config.js';
import { fixedShapes } from '../inference/shapes.js';
import { HostLayout } from './host-layout.js';
import { BatchBudgets, chooseBudget, measureBudgets, type Measured } from './batch-budget.js';

/** A runner on a clock of its own: a batch takes what `millisecondsOf` says of its tokens. */
function timed(millisecondsOf: (tokens: number) => number) {
  const runner = new MemoryRunner();
  let now = 0;
  const run = runner.run.bind(runner);
  runner.run = (batch) => {
    now += millisecondsOf(batch.rows * batch.length);
    return run(batch);
  };
  return { runner, nowMs: () => now };
}

describe('measureBudgets', () => {
  it('ends where larger batches have become slower, and takes the fastest', async () => {
    // Past 1,024 tokens the caches are full: a token costs twice as much.
    const { runner, nowMs } = timed((tokens) => 20 + tokens * (tokens > 1024 ? 0.2 : 0.1));
    const measured = await measureBudgets(runner, 'g', 2, 65_536, nowMs);
    expect(measured.map(({ batchTokens }) => batchTokens)).toEqual([256, 512, 1024, 2048]);
    expect(chooseBudget(measured)).toBe(1024);
  });

  it('takes the smallest of those that are as fast', async () => {
    const { runner, nowMs } = timed((tokens) => tokens * 0.1);
    expect(chooseBudget(await measureBudgets(runner, 'g', 1, 4096, nowMs))).toBe(256);
  });

  it('takes what went where the device has no memory for more, and fails where nothing does', async () => {
    const { runner, nowMs } = timed((tokens) => {
      if (tokens > 512) throw new Error('out of memory');
      return 5;
    });
    expect(chooseBudget(await measureBudgets(runner, 'g', 1, 4096, nowMs))).toBe(512);
    runner.failing = new Error('broken');
    await expect(measureBudgets(runner, 'g', 1, 4096, nowMs)).rejects.toThrow('broken');
  });

  it('takes the largest where the machine is parallel', async () => {
    const { runner, nowMs } = timed(() => 5);
    expect(chooseBudget(await measureBudgets(runner, 'g', 1, 65_536, nowMs))).toBe(65_536);
  });

  it('measures batches as they can be: of the fixed shapes, and of no more rows than a batch has', async () => {
    const { runner, nowMs } = timed(() => 5);
    await measureBudgets(runner, 'g', 1, 65_536, nowMs);
    for (const { rows, length } of runner.batches) expect(fixedShapes(65_536, 128)).toContainEqual({ rows, length });
    expect(runner.batches.slice(-6).map(({ rows, length }) => [rows, length])).toEqual([
      ...[1, 2, 3].map(() => [512, 64]),
      ...[1, 2, 3].map(() => [512, 128]),
    ]);
  });
});

describe('BatchBudgets', () => {
  let dataDir: string;
  beforeEach(async () => void (dataDir = await mkdtemp(join(tmpdir(), 'budgets-'))));
  afterEach(() => rm(dataDir, { recursive: true }));

  const budgets = (maxBatchTokens: number | '') =>
    new BatchBudgets({ dataDir, maxBatchTokens, device: 'cpu' } as Config, new HostLayout(2, 1));

  it('measures a kind of graph once, and again where the file is broken', async () => {
    const runner = new MemoryRunner();
    const both = budgets('');
    const found = await Promise.all(['base', 'other'].map((kind) => both.budgetOf(kind, runner, 'g')));
    for (const tokens of found) expect([256, 512, 1024, 2048, 4096]).toContain(tokens);
    runner.batches.length = 0;
    const again = budgets('');
    await again.budgetOf('base', runner, 'g');
    expect(runner.batches).toEqual([]);
    await writeFile(join(dataDir, 'batch-budgets.json'), '{"half');
    await again.budgetOf('base', runner, 'g');
    expect(runner.batches).not.toEqual([]);
    expect(JSON.parse(await readFile(join(dataDir, 'batch-budgets.json'), 'utf8'))).toMatchObject({});
  });

  it('measures anew what was measured on another machine, and keeps both', async () => {
    const file = join(dataDir, 'batch-budgets.json');
    await budgets('').budgetOf('base', new MemoryRunner(), 'g');
    const kept = JSON.parse(await readFile(file, 'utf8')) as Record<string, Measured[]>;
    const [here, measured] = Object.entries(kept)[0]!;
    const there = here.replace(/onnxruntime [\d.]+/u, 'onnxruntime 1.0.0');
    expect(there).not.toBe(here);
    await writeFile(file, JSON.stringify({ [there]: measured }));
    const moved = budgets('');
    expect(await moved.rateOf('base')).toBeUndefined();
    const runner = new MemoryRunner();
    await moved.budgetOf('base', runner, 'g');
    expect(runner.batches).not.toEqual([]);
    expect(Object.keys(JSON.parse(await readFile(file, 'utf8')) as object)).toEqual([there, here]);
  });

  it('measures nothing where the budget is set', async () => {
    const runner = new MemoryRunner();
    expect(await budgets(700).budgetOf('base fp32', runner, 'g')).toBe(700);
    expect(runner.batches).toEqual([]);
  });
});
