import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  compare,
  differenceInterval,
  exactMcNemar,
  meets,
  neededRows,
  pairedCounts,
  VERDICTS_IN_ORDER,
  type PairedCounts,
} from './gate-statistics.js';

const cell = fc.integer({ min: 0, max: 400 });
const table = fc.record({ bothRight: cell, onlyChallengerRight: cell, onlyChampionRight: cell, bothWrong: cell });

function counts(a: number, b: number, c: number, d: number): PairedCounts {
  return { bothRight: a, onlyChallengerRight: b, onlyChampionRight: c, bothWrong: d };
}

function exchanged(table: PairedCounts): PairedCounts {
  return { ...table, onlyChallengerRight: table.onlyChampionRight, onlyChampionRight: table.onlyChallengerRight };
}

/** Two times the smaller tail of Binomial(n, 1/2), summed exactly in integers. */
function exactByIntegers(b: number, c: number): number {
  const n = b + c;
  let term = 1n;
  let sum = 0n;
  for (let k = 0; k <= Math.min(b, c); k += 1) {
    sum += term;
    term = (term * BigInt(n - k)) / BigInt(k + 1);
  }
  const scale = 10n ** 15n;
  return Math.min(1, Number((2n * sum * scale) / 2n ** BigInt(n)) / 1e15);
}

describe('exact McNemar', () => {
  it('is the binomial test on the discordant pairs', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 300 }), (b, c) => {
        expect(exactMcNemar(counts(5, b, c, 5))).toBeCloseTo(exactByIntegers(b, c), 9);
      }),
    );
  });

  it('does not ask which of the two is the champion', () => {
    fc.assert(
      fc.property(table, (rows) => {
        expect(exactMcNemar(rows)).toBe(exactMcNemar(exchanged(rows)));
      }),
    );
  });

  it('says 1 where no pair is discordant', () => {
    expect(exactMcNemar(counts(10, 0, 0, 3))).toBe(1);
    expect(exactMcNemar(counts(0, 0, 0, 0))).toBe(1);
  });
});

describe('interval of the difference', () => {
  it('is the published one for the published tables', () => {
    // Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33:2850-2875: airway responsiveness.
    const airway = differenceInterval(counts(1, 1, 7, 12));
    expect(airway.low).toBeCloseTo(-0.507, 3);
    expect(airway.high).toBeCloseTo(-0.026, 3);
  });

  it('holds the difference, stays in [-1, 1] and turns round with the roles', () => {
    fc.assert(
      fc.property(table, (rows) => {
        const seen = compare(rows, 0.01);
        const { low, high } = seen.interval;
        expect(low).toBeGreaterThanOrEqual(-1);
        expect(high).toBeLessThanOrEqual(1);
        expect(low).toBeLessThanOrEqual((seen.difference ?? low) + 1e-12);
        expect(high).toBeGreaterThanOrEqual((seen.difference ?? high) - 1e-12);
        const turned = differenceInterval(exchanged(rows));
        expect(turned.low).toBeCloseTo(-high, 12);
        expect(turned.high).toBeCloseTo(-low, 12);
      }),
    );
  });

  it('narrows with rows', () => {
    const few = differenceInterval(counts(20, 6, 2, 4));
    const many = differenceInterval(counts(2000, 600, 200, 400));
    expect(many.high - many.low).toBeLessThan((few.high - few.low) / 5);
  });
});

describe('verdict', () => {
  it('is INCONCLUSIVE with no rows and with few', () => {
    expect(compare(counts(0, 0, 0, 0), 0.01).verdict).toBe('INCONCLUSIVE');
    expect(compare(counts(4, 2, 0, 1), 0.01).verdict).toBe('INCONCLUSIVE');
  });

  it('is decided by many rows', () => {
    expect(compare(counts(700, 60, 20, 220), 0.01).verdict).toBe('BETTER');
    expect(compare(counts(700, 20, 60, 220), 0.01).verdict).toBe('WORSE');
    expect(compare(counts(8000, 50, 50, 1900), 0.01).verdict).toBe('NOT_WORSE');
  });

  it('lets the margin forgive a certain but small loss', () => {
    const loss = counts(90_000, 100, 300, 9_600);
    expect(compare(loss, 0.01).verdict).toBe('NOT_WORSE');
    expect(compare(loss, 0).verdict).toBe('WORSE');
  });

  it('is never lower by a wider margin, nor by a row that changes sides for the challenger', () => {
    fc.assert(
      fc.property(table, fc.double({ min: 0, max: 0.2, noNaN: true }), (rows, margin) => {
        const order = (verdict: (typeof VERDICTS_IN_ORDER)[number]) => VERDICTS_IN_ORDER.indexOf(verdict);
        const narrow = order(compare(rows, margin).verdict);
        expect(order(compare(rows, margin + 0.05).verdict)).toBeGreaterThanOrEqual(narrow);
        if (rows.onlyChampionRight === 0) return;
        const better = {
          ...rows,
          onlyChampionRight: rows.onlyChampionRight - 1,
          onlyChallengerRight: rows.onlyChallengerRight + 1,
        };
        expect(order(compare(better, margin).verdict)).toBeGreaterThanOrEqual(narrow);
      }),
    );
  });

  it('meets a minimum at and above it', () => {
    expect(meets('NOT_WORSE', 'not-worse')).toBe(true);
    expect(meets('BETTER', 'not-worse')).toBe(true);
    expect(meets('INCONCLUSIVE', 'not-worse')).toBe(false);
    expect(meets('WORSE', 'worse')).toBe(true);
  });
});

describe('needed rows', () => {
  it('is Connor’s formula', () => {
    // One row in four discordant, twelve points apart: about 130 rows.
    const needed = neededRows(counts(60_000, 18_500, 6_500, 15_000), 0.01);
    expect(needed.toTellApart).toBeGreaterThan(125);
    expect(needed.toTellApart).toBeLessThan(137);
  });

  it('says that none would decide where nothing was seen to differ, or the loss exceeds the margin', () => {
    expect(neededRows(counts(10, 3, 3, 4), 0.01).toTellApart).toBeNull();
    expect(neededRows(counts(10, 1, 8, 4), 0.01).toBeNotWorse).toBeNull();
  });

  it('is about enough: as many rows with the same proportions decide', () => {
    fc.assert(
      fc.property(fc.integer({ min: 8, max: 40 }), fc.integer({ min: 0, max: 4 }), (b, c) => {
        const seen = counts(60, b, c, 20);
        const scale = (neededRows(seen, 0.01).toTellApart ?? 0) / (80 + b + c);
        const larger = counts(
          Math.round(60 * scale),
          Math.round(b * scale),
          Math.round(c * scale),
          Math.round(20 * scale),
        );
        fc.pre(larger.onlyChallengerRight + larger.onlyChampionRight > 10);
        expect(exactMcNemar(larger)).toBeLessThan(0.05);
      }),
    );
  });
});

describe('paired counts', () => {
  it('counts rows by who was right', () => {
    expect(pairedCounts([true, true, false, false], [true, false, true, false])).toEqual(counts(1, 1, 1, 1));
    expect(() => pairedCounts([true], [])).toThrow(RangeError);
  });
});
