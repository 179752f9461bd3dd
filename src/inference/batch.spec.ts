import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { groupOf, nextTurn, NONE_PASSED, packBatch, takeBatch, type Passed, type Pending, type Row } from './batch.js';
import { exactShape, fixedShape, type ShapeOf } from './shapes.js';
import type { Priority } from './types.js';

const row = (length: number, graph = 'g', words = [[7], [8]]): Row => ({
  graph,
  encoding: {
    ids: Array.from({ length }, (_, i) => i + 1),
    typeIds: Array.from({ length }, () => 0),
    maskPositions: [1],
  },
  words,
});

const RUNNER = {};

const pending = (length: number, priority: Priority, enqueuedAtMs: number, graph = 'g', runner = RUNNER): Pending => {
  const own = row(length, graph);
  return { row: own, runner, group: groupOf(own), priority, enqueuedAtMs };
};

const priorities = fc.constantFrom<Priority>('interactive', 'bulk', 'background');
const work = fc.array(
  fc.record({
    // Few, so that rows are equal, and near enough to share a batch.
    length: fc.constantFrom(18, 19, 20, 21, 40, 60),
    priority: priorities,
    waitedMs: fc.integer({ min: 0, max: 15_000 }),
    graph: fc.constantFrom('a', 'a', 'a', 'b'),
    runner: fc.constantFrom(RUNNER, RUNNER, RUNNER, {}),
  }),
  { minLength: 1, maxLength: 150, size: 'max' },
);
const NOW_MS = 20_000;
const passes = fc.record({ bulk: fc.integer({ min: 0, max: 20 }), background: fc.integer({ min: 0, max: 20 }) });
const shapes = fc.constantFrom(exactShape, fixedShape);

const lengthOf = (entry: Pending) => entry.row.encoding.ids.length;
const lengthsOf = (batch: Pending[]) => batch.map(lengthOf);
const leadOf = (queue: Pending[], passed: Passed, nowMs: number) => nextTurn(queue, passed, nowMs)?.lead;
const take = (queue: Pending[], budget: number, shapeOf?: ShapeOf) =>
  takeBatch(queue, leadOf(queue, NONE_PASSED, NOW_MS)!, budget, shapeOf);

describe('takeBatch', () => {
  const batches = fc
    .tuple(work, fc.integer({ min: 100, max: 3000 }), passes, shapes)
    .map(([all, budget, passed, shapeOf]) => {
      const queue = all
        .toSorted((a, b) => b.waitedMs - a.waitedMs)
        .map((w) => pending(w.length, w.priority, NOW_MS - w.waitedMs, w.graph, w.runner));
      const lead = leadOf(queue, passed, NOW_MS)!;
      return { queue, budget, shapeOf, lead, batch: takeBatch(queue, lead, budget, shapeOf) };
    });

  it('is within budget, of one runner and group, and holds its lead', () => {
    fc.assert(
      fc.property(batches, ({ budget, shapeOf, lead, batch }) => {
        const shape = shapeOf(batch.length, Math.max(...lengthsOf(batch)));
        expect(batch.length === 1 || shape.rows * shape.length <= budget).toBe(true);
        expect(batch.length).toBeLessThanOrEqual(512);
        expect(new Set(batch).size).toBe(batch.length);
        expect(new Set(batch.map(({ group }) => group)).size).toBe(1);
        expect(new Set(batch.map(({ runner }) => runner)).size).toBe(1);
        expect(batch).toContain(lead);
      }),
    );
  });

  it('keeps the order of arrival: the oldest of its class leads, and among equals none is before an older one', () => {
    fc.assert(
      fc.property(batches, ({ queue, lead, batch }) => {
        expect(lead).toBe(queue.find(({ priority }) => priority === lead.priority));
        const taken = new Set(batch);
        const equals = Map.groupBy(queue, (entry) =>
          [
            entry.group,
            entry.priority,
            lengthOf(entry),
            queue.findIndex(({ runner }) => runner === entry.runner),
          ].join(),
        );
        for (const rows of equals.values()) {
          const isTaken = rows.map((entry) => taken.has(entry));
          expect(isTaken).toEqual(isTaken.toSorted((a, b) => Number(b) - Number(a)));
        }
      }),
    );
  });

  it('groups what is of similar length', () => {
    const queue = [20, 100, 21, 99, 22].map((length) => pending(length, 'interactive', 0));
    expect(lengthsOf(take(queue, 100))).toEqual([20, 21, 22]);
  });

  it('leaves a row that would pad more than a batch of its own costs', () => {
    const queue = [20, 21, 21, 60, 90].map((length) => pending(length, 'interactive', 0));
    expect(lengthsOf(take(queue, 512))).toEqual([20, 21, 21]);
    // Where a batch is costly, as on a GPU, padding is cheaper than another one.
    expect(lengthsOf(take(queue, 65_536))).toEqual([20, 21, 21, 60, 90]);
  });

  it('gives a row that is over the budget a batch of its own', () => {
    const queue = [pending(300, 'interactive', 0), pending(5, 'interactive', 0)];
    expect(take(queue, 256)).toEqual([queue[0]]);
  });

  it('fills what its class leaves with the other classes, the most urgent first', () => {
    const [background, bulk, long] = [pending(20, 'background', 0), pending(20, 'bulk', 1), pending(21, 'bulk', 2)];
    const interactive = pending(20, 'interactive', 3);
    const queue = [background, bulk, long, interactive];
    expect(takeBatch(queue, interactive, 40)).toEqual([interactive, bulk]);
    expect(takeBatch(queue, interactive, 80)).toEqual([interactive, bulk, background]);
  });
});

describe('nextTurn', () => {
  const [background, bulk, interactive] = [
    pending(100, 'background', 0),
    pending(100, 'bulk', 5000),
    pending(100, 'interactive', 6000),
  ];
  const all = [background, bulk, interactive];
  /** Who leads in turn while as much waits. */
  const turns = (queue: Pending[], nowMs: number, count: number) => {
    let passed = NONE_PASSED;
    return Array.from({ length: count }, () => {
      const turn = nextTurn(queue, passed, nowMs)!;
      ({ passed } = turn);
      return turn.lead.priority;
    });
  };

  it('is interactive before bulk before background while none of them has waited long', () => {
    expect(nextTurn([], NONE_PASSED, 0)).toBeUndefined();
    expect(new Set(turns(all, 6999, 40))).toEqual(new Set(['interactive']));
    expect(new Set(turns([background, bulk], 9999, 40))).toEqual(new Set(['bulk']));
    expect(turns([background], 0, 2)).toEqual(['background', 'background']);
  });

  it('is of bulk that has waited two seconds once in four, of background that has waited ten once in sixteen', () => {
    const led = turns(all, 10_000, 48);
    const count = (priority: Priority) => led.filter((one) => one === priority).length;
    expect(led.slice(0, 5)).toEqual(['interactive', 'interactive', 'interactive', 'bulk', 'interactive']);
    expect([count('interactive'), count('bulk'), count('background')]).toEqual([34, 12, 2]);
    expect(turns([background, bulk], 10_000, 17).indexOf('background')).toBe(15);
  });

  it('starves nobody: each row goes within the batches that its class is owed, whatever comes', () => {
    const arrivals = fc.array(
      fc.record({
        // So that every class is kept waiting, and comes of age while others are served.
        afterMs: fc.integer({ min: 0, max: 600 }),
        rows: fc.array(fc.record({ length: fc.constantFrom(50, 60, 99), priority: priorities }), { maxLength: 4 }),
      }),
      { minLength: 30, maxLength: 80 },
    );
    fc.assert(
      fc.property(arrivals, (steps) => {
        interface Seen extends Pending {
          /** Rows of its class before it, and batches since it was owed anything. */
          before: number;
          batches: number;
        }
        const isLate = ({ priority, before, batches }: Seen) => {
          if (priority === 'bulk') return batches > 4 * (before + 1);
          if (priority === 'background') return batches > 17 * (before + 1);
          const others = batches - 1;
          return others - Math.ceil(others / 4) - Math.ceil(others / 16) > before;
        };
        const late: Seen[] = [];
        let queue: Seen[] = [];
        let passed = NONE_PASSED;
        let nowMs = 0;
        const batch = () => {
          const turn = nextTurn(queue, passed, nowMs)!;
          ({ passed } = turn);
          const taken = new Set(takeBatch(queue, turn.lead, 100));
          for (const entry of queue) {
            const waited = nowMs - entry.enqueuedAtMs;
            if (waited >= { interactive: 0, bulk: 2000, background: 10_000 }[entry.priority]) entry.batches++;
          }
          late.push(...[...taken].filter(isLate));
          queue = queue.filter((entry) => !taken.has(entry));
        };
        for (const { afterMs, rows } of steps) {
          nowMs += afterMs;
          for (const { length, priority } of rows) {
            const before = queue.filter((entry) => entry.priority === priority).length;
            queue.push({ ...pending(length, priority, nowMs), before, batches: 0 });
          }
          if (queue.length > 0) batch();
        }
        while (queue.length > 0) {
          nowMs += 100;
          batch();
        }
        expect(late).toEqual([]);
      }),
    );
  });
});

it('a batch of a fixed shape is within budget as it is padded, and repeats its last row', () => {
  const queue = Array.from({ length: 9 }, () => pending(20, 'interactive', 0));
  // 9 x 20 is within 256; of rows that are a power of two 8 x 32 is.
  expect(take(queue, 256)).toHaveLength(9);
  expect(take(queue, 256, fixedShape)).toHaveLength(8);
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
