import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { groupOf, packBatch, takeBatch, type Pending, type Row } from './batch.js';
import { fixedShape } from './shapes.js';

const row = (length: number, graph = 'g', words = [[7], [8]]): Row => ({
  graph,
  encoding: {
    ids: Array.from({ length }, (_, i) => i + 1),
    typeIds: Array.from({ length }, () => 0),
    maskPositions: [1],
  },
  words,
});

const pending = (length: number, priority: Pending['priority'], enqueuedAtMs: number, graph = 'g'): Pending => {
  const own = row(length, graph);
  return { row: own, group: groupOf(own), priority, enqueuedAtMs };
};

const work = fc.array(
  fc.record({
    length: fc.integer({ min: 2, max: 150 }),
    priority: fc.constantFrom('interactive' as const, 'bulk' as const, 'background' as const),
    waitedMs: fc.integer({ min: 0, max: 4900 }),
    graph: fc.constantFrom('a', 'b'),
  }),
  { minLength: 1, maxLength: 150 },
);

describe('takeBatch', () => {
  it('is within budget, of one group, and holds the most urgent row', () => {
    fc.assert(
      fc.property(work, fc.integer({ min: 100, max: 3000 }), (all, budget) => {
        const queue = [...all]
          .sort((a, b) => b.waitedMs - a.waitedMs)
          .map((w) => pending(w.length, w.priority, 5000 - w.waitedMs, w.graph));
        const batch = takeBatch(queue, budget, 5000);
        const longest = Math.max(...batch.map((entry) => entry.row.encoding.ids.length));
        expect(batch.length === 1 || batch.length * longest <= budget).toBe(true);
        expect(batch.length).toBeLessThanOrEqual(512);
        expect(new Set(batch).size).toBe(batch.length);
        expect(new Set(batch.map((entry) => entry.group)).size).toBe(1);
        const waited = (entry: Pending) => entry.priority === 'bulk' && 5000 - entry.enqueuedAtMs >= 2000;
        const isUrgent = (entry: Pending) => entry.priority === 'interactive' || waited(entry);
        const next = queue.find(isUrgent) ?? queue.find((entry) => entry.priority === 'bulk') ?? queue[0];
        expect(batch).toContain(next);
      }),
    );
  });

  it('takes interactive work first, and bulk that has waited two seconds as such', () => {
    const bulk = pending(100, 'bulk', 0);
    const interactive = pending(100, 'interactive', 1000);
    expect(takeBatch([bulk, interactive], 100, 1500)).toEqual([interactive]);
    expect(takeBatch([bulk, interactive], 100, 2500)).toEqual([bulk]);
  });

  it('takes what nobody waits for last, until it has waited ten seconds', () => {
    const background = pending(100, 'background', 0);
    const bulk = pending(100, 'bulk', 5000);
    const interactive = pending(100, 'interactive', 6000);
    expect(takeBatch([background, bulk], 100, 5500)).toEqual([bulk]);
    expect(takeBatch([background, interactive], 100, 9000)).toEqual([interactive]);
    expect(takeBatch([background, interactive], 100, 10_500)).toEqual([background]);
  });

  it('groups what is of similar length', () => {
    const queue = [20, 100, 21, 99, 22].map((length) => pending(length, 'interactive', 0));
    expect(takeBatch(queue, 100, 0).map((entry) => entry.row.encoding.ids.length)).toEqual([20, 21, 22]);
  });

  it('leaves a row that would pad more than a batch of its own costs', () => {
    const queue = [20, 21, 21, 60, 90].map((length) => pending(length, 'interactive', 0));
    const lengths = (budget: number) => takeBatch(queue, budget, 0).map((entry) => entry.row.encoding.ids.length);
    expect(lengths(512)).toEqual([20, 21, 21]);
    // Where a batch is costly, as on a GPU, padding is cheaper than another one.
    expect(lengths(65_536)).toEqual([20, 21, 21, 60, 90]);
  });

  it('gives a row that is over the budget a batch of its own', () => {
    const queue = [pending(300, 'interactive', 0), pending(5, 'interactive', 0)];
    expect(takeBatch(queue, 256, 0)).toEqual([queue[0]]);
  });
});

it('a batch of a fixed shape is within budget as it is padded, and repeats its last row', () => {
  const queue = Array.from({ length: 9 }, () => pending(20, 'interactive', 0));
  // 9 x 20 is within 256; of rows that are a power of two 8 x 32 is.
  expect(takeBatch(queue, 256, 0)).toHaveLength(9);
  expect(takeBatch(queue, 256, 0, fixedShape)).toHaveLength(8);
  const batch = packBatch([row(2), row(3), row(2)], 9, fixedShape);
  expect(batch).toMatchObject({ rows: 4, length: 16 });
  const rowOf = (r: number) => Array.from(batch.inputIds.subarray(16 * r, 16 * r + 4));
  expect([0, 1, 2, 3].map(rowOf)).toEqual([
    [1n, 2n, 9n, 9n],
    [1n, 2n, 3n, 9n],
    [1n, 2n, 9n, 9n],
    [1n, 2n, 9n, 9n],
  ]);
  expect(batch.attentionMask.slice(48, 52)).toEqual(BigInt64Array.of(1n, 1n, 0n, 0n));
});

it('packBatch pads to the longest', () => {
  const batch = packBatch([row(2), row(3)], 9);
  expect(batch).toMatchObject({ graph: 'g', rows: 2, length: 3, masks: 1, words: 2 });
  expect([...batch.inputIds]).toEqual([1n, 2n, 9n, 1n, 2n, 3n]);
  expect([...batch.attentionMask]).toEqual([1n, 1n, 0n, 1n, 1n, 1n]);
  expect([...batch.maskPositions]).toEqual([1n, 1n]);
  expect([...batch.labelTokens]).toEqual([7n, 8n, 7n, 8n]);
});
