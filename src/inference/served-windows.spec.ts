import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { FewloopError } from '../common/errors.js';
import { ServedWindows } from './served-windows.js';

beforeEach(() => void vi.useFakeTimers({ now: 1000 }));
afterEach(() => void vi.useRealTimers());

const said = (itemKey: string, ...labels: string[]) => ({ ok: true, itemKey, prediction: { labels } }) as const;
const failed = (code: 'INTERNAL' | 'OVERLOADED') => ({ ok: false, error: new FewloopError(code, 'so') }) as const;

it('counts answers by label, defects, and how long requests took, by version and since a time', () => {
  const windows = new ServedWindows();
  windows.note('t', 1, [said('1', 'a'), said('2', 'b', 'a'), failed('INTERNAL'), failed('OVERLOADED')], 12);
  vi.setSystemTime(2000);
  windows.note('t', 1, [said('3', 'a')], null);
  windows.note('t', 2, [said('1', 'c')], 3);
  expect(windows.of('t', 1, 0)).toEqual({
    answered: 3,
    failed: 1,
    labels: new Map([
      ['a', 2],
      ['a\nb', 1],
    ]),
    latenciesMs: [12],
  });
  expect(windows.of('t', 1, 1500)).toEqual({ answered: 1, failed: 0, labels: new Map([['a', 1]]), latenciesMs: [] });
  expect(windows.of('t', 2, 0)).toMatchObject({ answered: 1, latenciesMs: [3] });
  expect(windows.of('other', 1, 0).answered).toBe(0);
});

it('counts each text once among the labels, as it was answered last, and each answer as one', () => {
  const windows = new ServedWindows();
  // What is newest stands in the place of what was oldest.
  for (let i = 0; i < 1990; i++) windows.note('t', 1, [said('hot', 'old')], 1);
  for (let i = 0; i < 20; i++) windows.note('t', 1, [said('hot', i < 5 ? 'old' : 'new'), failed('INTERNAL')], 1);
  windows.note('t', 1, [said('rare', 'old')], 1);
  expect(windows.of('t', 1, 0)).toMatchObject({
    answered: 1980,
    failed: 20,
    labels: new Map([
      ['new', 1],
      ['old', 1],
    ]),
  });
  vi.setSystemTime(2000);
  windows.note('t', 1, [said('hot', 'newer')], 1);
  expect(windows.of('t', 1, 1500)).toMatchObject({ answered: 1, failed: 0, labels: new Map([['newer', 1]]) });
});

it('keeps the last answers of the last versions', () => {
  const windows = new ServedWindows();
  for (let i = 0; i < 3000; i++) windows.note('t', 1, [said(`${i}`, i < 1000 ? 'old' : 'new')], i);
  expect(windows.of('t', 1, 0).labels).toEqual(new Map([['new', 2000]]));
  for (const version of [2, 3, 4]) windows.note('t', version, [said('1', 'a')], 1);
  expect(windows.of('t', 1, 0).answered).toBe(0);
  expect(windows.of('t', 4, 0).answered).toBe(1);
});
