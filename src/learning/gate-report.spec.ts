import { describe, expect, it } from 'vitest';

import { describeComparison, macroF1 } from './gate-report.js';
import { compare } from './gate-statistics.js';

function counts(a: number, b: number, c: number, d: number) {
  return { bothRight: a, onlyChallengerRight: b, onlyChampionRight: c, bothWrong: d };
}

describe('the gate’s words', () => {
  it('say how many answers would decide where few do not', () => {
    const text = describeComparison(compare(counts(12, 3, 1, 4), 0.01), 1);
    expect(text).toContain('On 20 held-out rows the challenger is +10.0 points from version 1');
    expect(text).toMatch(/undecided\. About \d+ held-out rows would decide .* some \d+ more audit answers/);
  });

  it('say so where there is no row, or no champion', () => {
    expect(describeComparison(compare(counts(0, 0, 0, 0), 0.01), 1)).toMatch(/^No held-out row.*would decide/);
    expect(describeComparison(compare(counts(0, 0, 0, 0), 0.01), null)).toContain('No version is active');
  });

  it('never ask for fewer rows than there are', () => {
    const comparison = compare(counts(100, 6, 0, 4), 0.0);
    const undecided = {
      ...comparison,
      verdict: 'INCONCLUSIVE' as const,
      neededRows: { toTellApart: 20, toBeNotWorse: 30 },
    };
    expect(describeComparison(undecided, 1)).toContain('About 111 held-out rows');
  });

  it('name the verdict', () => {
    expect(describeComparison(compare(counts(700, 60, 20, 220), 0.01), 3)).toMatch(/: better\.$/);
    expect(describeComparison(compare(counts(700, 20, 60, 220), 0.01), 3)).toMatch(/: worse\.$/);
    expect(describeComparison(compare(counts(8000, 50, 50, 1900), 0.01), 3)).toMatch(/not worse by the margin of 1\.0/);
  });
});

describe('macro F1', () => {
  it('is the mean over labels', () => {
    expect(macroF1(['a', 'a', 'b', 'b'], ['a', 'a', 'b', 'b'])).toBe(1);
    // a: 2·1/(2+1); b: 2·1/(1+2)
    expect(macroF1(['a', 'a', 'b'], ['a', 'b', 'b'])).toBeCloseTo(2 / 3);
    expect(macroF1(['a'], ['b'])).toBe(0);
    expect(macroF1([], [])).toBeNull();
  });
});
