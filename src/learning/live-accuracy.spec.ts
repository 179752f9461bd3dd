import { describe, expect, it } from 'vitest';

import type { JudgedRow } from './gate-figures.js';
import { CALIBRATION_ROWS, liveAccuracyOf } from './live-accuracy.js';

/** Right and wrong ones spread evenly: rows of equal confidence fall into bins by their order. */
function rows(count: number, right: number, label = 'a'): JudgedRow[] {
  return Array.from({ length: count }, (_, i) => {
    const hit = Math.floor(((i + 1) * right) / count) > Math.floor((i * right) / count);
    return { labels: [label], answer: [hit ? label : 'other'], forecasts: [{ probability: 0.9, hit }] };
  });
}

describe('live accuracy', () => {
  it('has no figure without rows, and an interval that says nothing', () => {
    expect(liveAccuracyOf([], ['a'])).toEqual({
      rows: 0,
      right: 0,
      accuracy: null,
      low: 0,
      high: 1,
      byLabel: [],
      calibrationError: null,
    });
  });

  it("has Wilson's interval", () => {
    // Newcombe (1998), table I: 81 of 263.
    const { accuracy, low, high } = liveAccuracyOf(rows(263, 81), ['a']);
    expect(accuracy).toBeCloseTo(0.308, 3);
    expect(low).toBeCloseTo(0.2553, 4);
    expect(high).toBeCloseTo(0.3662, 4);
  });

  it('tells of the labels that have enough rows', () => {
    const { byLabel } = liveAccuracyOf([...rows(20, 15, 'a'), ...rows(19, 19, 'b')], ['b', 'a']);
    expect(byLabel).toMatchObject([{ label: 'a', rows: 20, right: 15, accuracy: 0.75 }]);
  });

  it('tells the calibration error from 200 rows on', () => {
    const enough = rows(CALIBRATION_ROWS, CALIBRATION_ROWS * 0.7);
    expect(liveAccuracyOf(enough.slice(1), ['a']).calibrationError).toBeNull();
    expect(liveAccuracyOf(enough, ['a']).calibrationError).toBeCloseTo(0.2, 10);
  });
});
