import { describe, expect, it } from 'vitest';

import { describeComparison, describeFirst } from './gate-report.js';
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
    expect(describeFirst({ rows: 0, right: 0 })).toMatch(/No version is active.*No held-out row/);
    expect(describeFirst({ rows: 12, right: 9 })).toContain('9 of 12 held-out rows right');
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
