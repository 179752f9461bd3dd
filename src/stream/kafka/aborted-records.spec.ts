import { expect, it } from 'vitest';
import { abortedRecords, type FetchedRecord } from './aborted-records.js';

const record = (offset: number, producerId: string, inTransaction = true): FetchedRecord => ({
  offset: String(offset),
  key: Buffer.from('key'),
  isControlRecord: false,
  batchContext: { producerId, inTransaction },
});
const marker = (offset: number, producerId: string, type: 'abort' | 'commit'): FetchedRecord => ({
  ...record(offset, producerId),
  key: Buffer.from([0, 0, 0, type === 'abort' ? 0 : 1]),
  isControlRecord: true,
});
const aborted = (records: FetchedRecord[], ...transactions: [producerId: string, first: number][]) =>
  abortedRecords(
    records,
    transactions.map(([producerId, first]) => ({ producerId, firstOffset: String(first) })),
  ).map(({ offset }) => Number(offset));

it('takes transactions that overlap, listed in the order in which they ended', () => {
  const records = [record(0, 'a'), record(1, 'b'), marker(2, 'b', 'abort'), record(3, 'a'), marker(4, 'a', 'abort')];
  expect(aborted(records, ['b', 1], ['a', 0])).toEqual([0, 1, 3]);
});

it('takes several that began before the fetch does', () => {
  const records = [
    record(10, 'b'),
    record(11, 'a'),
    marker(12, 'a', 'abort'),
    record(13, 'a'),
    marker(14, 'b', 'abort'),
  ];
  expect(aborted(records, ['a', 3], ['b', 5])).toEqual([10, 11]);
});

it('leaves what the same producer commits before and after, and what is outside transactions', () => {
  const records = [
    record(0, 'a'),
    marker(1, 'a', 'commit'),
    record(2, 'a'),
    record(3, 'a', false),
    marker(4, 'a', 'abort'),
    record(5, 'a'),
    marker(6, 'a', 'commit'),
  ];
  expect(aborted(records, ['a', 2])).toEqual([2]);
});

it('ends nothing at a record whose own key looks like a marker', () => {
  const looksSo = { ...record(1, 'a'), key: Buffer.alloc(4) };
  expect(aborted([record(0, 'a'), looksSo, record(2, 'a'), marker(3, 'a', 'abort')], ['a', 0])).toEqual([0, 1, 2]);
});

it('finds none where none is listed', () => {
  expect(aborted([record(0, 'a'), marker(1, 'a', 'commit')])).toEqual([]);
});
