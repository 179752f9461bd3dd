import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { FewloopError } from '../common/errors.js';
import { ServedWindows } from './served-windows.js';

beforeEach(() => void vi.useFakeTimers({ now: 1000 }));
afterEach(() => void vi.useRealTimers());

const said = (...labels: string[]) => ({ ok: true, prediction: { labels } }) as const;
const failed = (code: 'INTERNAL' | 'OVERLOADED') => ({ ok: false, error: new FewloopError(code, 'so') }) as const;

it('counts answers by label, defects, and how long requests took, by version and since a time', () => {
  const windows = new ServedWindows();
  windows.note('t', 1, [said('a'), said('b', 'a'), failed('INTERNAL'), failed('OVERLOADED')], 12);
  vi.setSystemTime(2000);
  windows.note('t', 1, [said('a')], null);
  windows.note('t', 2, [said('c')], 3);
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

it('keeps the last answers of the last versions', () => {
  const windows = new ServedWindows();
  for (let i = 0; i < 3000; i++) windows.note('t', 1, [said(i < 1000 ? 'old' : 'new')], i);
  expect(windows.of('t', 1, 0).labels).toEqual(new Map([['new', 2000]]));
  for (const version of [2, 3, 4]) windows.note('t', version, [said('a')], 1);
  expect(windows.of('t', 1, 0).answered).toBe(0);
  expect(windows.of('t', 4, 0).answered).toBe(1);
});
