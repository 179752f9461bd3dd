import { describe, expect, it } from 'vitest';
import { nextRecords } from './embedded-stream.js';

describe('records of a batch', () => {
  it('are as many as take about three seconds, 64 at least and 128 at most', () => {
    expect(nextRecords(64, 2)).toBe(96);
    expect(nextRecords(128, 4)).toBe(96);
    expect(nextRecords(64, 0.001)).toBe(128);
    expect(nextRecords(64, 0)).toBe(128);
    expect(nextRecords(128, 60)).toBe(64);
  });
});
