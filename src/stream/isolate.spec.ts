import { expect, it } from 'vitest';
import { FewloopError } from '../common/errors.js';
import { isolate } from './isolate.js';

const fault = new FewloopError('INTERNAL', 'the model host ended');
const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

/** Fails the whole call where a culprit is in it, as a host that ends does. */
function model(culprits: number[]) {
  const calls: number[][] = [];
  const classify = async (items: number[]) => {
    calls.push(items);
    const fails = items.some((item) => culprits.includes(item));
    return items.map((item) => (fails ? fault : `scored ${item}`));
  };
  return { calls, classify };
}

it('asks once where nothing fails', async () => {
  const { calls, classify } = model([]);
  expect(await isolate(numbers(64), classify)).toHaveLength(64);
  expect(calls).toHaveLength(1);
});

it.each([[[0]], [[63]], [[17, 18]], [[5, 40, 41, 62]]])('finds %j of 64 and scores the rest', async (culprits) => {
  const { calls, classify } = model(culprits);
  const results = await isolate(numbers(64), classify);
  expect(numbers(64).filter((i) => results[i] === fault)).toEqual(culprits);
  expect(results[30]).toBe('scored 30');
  // Every culprit failed alone in the end.
  for (const culprit of culprits) expect(calls).toContainEqual([culprit]);
  expect(calls.length).toBeLessThanOrEqual(2 + culprits.length * 2 * 6);
});

it('a fault that does not come again blames nobody', async () => {
  let first = true;
  const results = await isolate(numbers(8), async (items) => {
    const failing = first;
    first = false;
    return items.map((item) => (failing ? fault : item));
  });
  expect(results).toEqual(numbers(8));
});

it('leaves what an item itself is to blame for as it is', async () => {
  const bad = new FewloopError('BAD_INPUT', 'text: is empty');
  let calls = 0;
  await isolate([1, 2], async () => (calls++, [bad, 'fine']));
  expect(calls).toBe(1);
});
