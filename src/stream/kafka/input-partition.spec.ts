import { expect, it } from 'vitest';
import { InputPartition } from './input-partition.js';
import type { Incoming } from './record.js';

const LIMITS = { records: 3, bytes: 100 };
const free = () => false;

function records(from: number, to: number, bytes = 1): Incoming[] {
  return Array.from({ length: to - from + 1 }, (_, i) => ({
    topic: 't',
    partition: 0,
    offset: String(from + i),
    timestamp: '0',
    key: null,
    value: Buffer.alloc(bytes),
    headers: {},
  }));
}

function partition(from = 0, to = 9): InputPartition {
  const made = new InputPartition('t', 0, Promise.resolve());
  made.push(BigInt(from), BigInt(to), records(from, to));
  return made;
}

const offsets = (claim: { records: Incoming[] } | null) => claim?.records.map(({ offset }) => Number(offset));

it('is claimed from the oldest on, within limits', () => {
  const one = partition();
  expect(offsets(one.claim(LIMITS, free))).toEqual([0, 1, 2]);
  expect(offsets(one.claim({ records: 9, bytes: 2 }, free))).toEqual([3, 4]);
  expect(offsets(one.claim({ records: 9, bytes: 0 }, free))).toEqual([5]);
  expect(offsets(one.claim({ records: 9, bytes: 9 }, ({ offset }) => offset === '7'))).toEqual([6]);
  expect(one.claim(LIMITS, () => true)).toBeNull();
  expect([one.waiting, one.bytes, one.claims]).toEqual([3, 3, 4]);
});

it('a claim that fails takes the later ones back with it, in order', () => {
  const one = partition();
  const [first, second, third] = [one.claim(LIMITS, free)!, one.claim(LIMITS, free)!, one.claim(LIMITS, free)!];
  one.fail(second);
  expect([first, second, third].map(({ cancelled }) => cancelled)).toEqual([false, true, true]);
  // It learns later that it was cancelled, and its own failure changes nothing.
  one.fail(third);
  expect(offsets(one.claim({ records: 99, bytes: 99 }, free))).toEqual([3, 4, 5, 6, 7, 8, 9]);
  expect(one.bytes).toBe(0);
});

it('claims have their turn one after the other', async () => {
  const one = partition();
  const [first, second] = [one.claim(LIMITS, free)!, one.claim(LIMITS, free)!];
  let turn = false;
  void second.turn.then(() => (turn = true));
  await first.turn;
  expect(turn).toBe(false);
  one.finish(first);
  first.settle();
  await second.turn;
  expect(one.claims).toBe(1);
});

it('begins anew where fetching does; gaps are none of its business', () => {
  const one = partition(0, 4);
  one.push(8n, 9n, records(8, 9));
  expect(one.start).toBe(0n);
  one.checked = true;
  const claim = one.claim(LIMITS, free)!;
  one.push(2n, 3n, records(2, 3));
  expect([claim.cancelled, one.checked, one.start]).toEqual([true, false, 2n]);
  expect(offsets(one.claim({ records: 99, bytes: 99 }, free))).toEqual([2, 3]);
});

it('closed, it takes and gives nothing', () => {
  const one = partition();
  const claim = one.claim(LIMITS, free)!;
  one.close();
  one.push(0n, 9n, records(0, 9));
  one.fail(claim);
  expect([claim.cancelled, one.waiting, one.claim(LIMITS, free)]).toEqual([true, 0, null]);
});
