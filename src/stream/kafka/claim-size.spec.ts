import { expect, it } from 'vitest';
import { ClaimSize } from './claim-size.js';

it('grows while full claims are scored in no time, to a bound, and shrinks where they are slow', () => {
  const size = new ClaimSize();
  const after = (records: number, tookMs: number) => {
    size.scored(records, tookMs);
    return size.records;
  };
  expect(after(511, 1)).toBe(512);
  expect(after(512, 300)).toBe(512);
  expect([after(512, 10), after(1024, 10), after(2048, 10), after(4096, 10)]).toEqual([1024, 2048, 4096, 4096]);
  expect([after(4096, 500), after(4096, 1500), after(1, 1500)]).toEqual([4096, 2048, 1024]);
  expect([after(1024, 1500), after(512, 1500)]).toEqual([512, 512]);
});
