import { expect, it } from 'vitest';
import { inPortions } from './portions.js';

/** How many turns of the event loop `work` lets others have. */
async function turnsDuring(work: () => Promise<unknown>): Promise<number> {
  let turns = 0;
  let next = setImmediate(function turn() {
    turns++;
    next = setImmediate(turn);
  });
  await work();
  clearImmediate(next);
  return turns;
}

const numbers = Array.from({ length: 1000 }, (_, i) => i);

it('keeps the order', async () => {
  expect(
    await inPortions(
      numbers,
      () => 3,
      (value, i) => [value, i],
    ),
  ).toEqual(numbers.map((i) => [i, i]));
});

it.each([
  ['what fits into a portion at once', 256, 1, 0],
  ['others between portions', 1000, 1, 3],
  ['others behind each that is as large as one', 10, 300, 9],
  ['nobody before what is large alone', 1, 10_000, 0],
])('does, or lets in: %s', async (_name, count, weight, turns) => {
  const work = () =>
    inPortions(
      numbers.slice(0, count),
      () => weight,
      () => 0,
    );
  expect(await turnsDuring(work)).toBe(turns);
});

it('fails where a step does', async () => {
  const work = inPortions(
    numbers,
    () => 1,
    (i) => {
      if (i === 600) throw new Error('six hundred');
    },
  );
  await expect(work).rejects.toThrow('six hundred');
});
