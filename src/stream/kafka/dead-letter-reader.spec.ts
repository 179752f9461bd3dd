import { expect, it } from 'vitest';
import { oldestOf, type StoredLetter } from './dead-letter-reader.js';

const letters = (partition: number, times: number[]) =>
  times.map((time, offset): StoredLetter => {
    return { partition, offset: `${offset}`, key: null, value: null, headers: {}, timestamp: `${time}` };
  });
const taken = (first: number, ...partitions: number[][]) =>
  oldestOf(
    partitions.map((times, partition) => letters(partition, times)),
    first,
  ).map(({ partition, offset }) => `${partition}:${offset}`);

it('takes the oldest of all partitions first', () => {
  expect(taken(10, [1, 4, 5], [], [2, 3, 6])).toEqual(['0:0', '2:0', '2:1', '0:1', '0:2', '2:2']);
  expect(taken(3, [1, 4, 5], [2, 3, 6])).toEqual(['0:0', '1:0', '1:1']);
  expect(taken(3)).toEqual([]);
});

it('passes over none, where offsets and times of a partition do not agree', () => {
  // Its second letter is the oldest of all, and lies behind one that is not.
  expect(taken(1, [9, 1], [5])).toEqual(['1:0']);
  expect(taken(2, [9, 1], [5])).toEqual(['1:0', '0:0']);
  expect(taken(3, [9, 1], [5])).toEqual(['1:0', '0:0', '0:1']);
});
