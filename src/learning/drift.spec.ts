import { describe, expect, it } from 'vitest';

import { draw } from '../../test/fixtures/traffic.js';
import { jensenShannon, stabilityIndex } from './divergence.js';
import { CHECKS_A_YEAR, driftOf, LEAST_TEXTS, levelOf, WINDOW_TEXTS, windowsOf } from './drift.js';
import { generatorOf, permutationTest } from './permutation.js';

/** A level of 5 % a test, which few checks suffice to measure. */
const OFTEN = { falseAlarmsPerYear: 0.05 * CHECKS_A_YEAR * 3, minEffect: 0 };
const CHECKS = 200;
const ROWS = 60;

describe('divergences', () => {
  it('are 0 of equal shares; the Jensen-Shannon divergence is 1 where nothing is shared', () => {
    const [a, b] = [Float64Array.of(10, 30), Float64Array.of(30, 10)];
    expect(jensenShannon(a, Float64Array.of(20, 60))).toBeCloseTo(0, 12);
    expect(jensenShannon(Float64Array.of(4, 0), Float64Array.of(0, 7))).toBeCloseTo(1, 12);
    expect(stabilityIndex(a, a)).toBe(0);
    // Twice (30.5 - 10.5) / 41 times ln(30.5 / 10.5).
    expect(stabilityIndex(a, b)).toBeCloseTo(((2 * 20) / 41) * Math.log(30.5 / 10.5), 12);
  });
});

describe('the permutation test', () => {
  it('is exact where all orders can be told apart', () => {
    // Of 20 ways to choose 3 of 6 one is as great as what is observed.
    const values = [10, 11, 12, 1, 2, 3];
    const statistic = (order: Int32Array) => values[order[0]!]! + values[order[1]!]! + values[order[2]!]!;
    const { p } = permutationTest(6, statistic, 100_000, generatorOf(3));
    expect(p).toBeGreaterThan(0.03);
    expect(p).toBeLessThan(0.08);
  });

  it('stops early where there is nothing', () => {
    expect(permutationTest(6, () => 1, 100_000, generatorOf(3))).toMatchObject({ p: 1, draws: 20 });
  });
});

describe('windows', () => {
  it('are the first and the last rows, disjoint, or none where there are too few', () => {
    const rows = Array.from({ length: 2 * LEAST_TEXTS }, (_, i) => i);
    expect(windowsOf(rows.slice(1))).toBeNull();
    expect(windowsOf(rows)).toEqual({ reference: rows.slice(0, LEAST_TEXTS), present: rows.slice(LEAST_TEXTS) });
    const many = Array.from({ length: 5 * WINDOW_TEXTS }, (_, i) => i);
    expect(windowsOf(many)).toMatchObject({
      reference: { length: WINDOW_TEXTS, 0: 0 },
      present: { length: WINDOW_TEXTS, 0: 4 * WINDOW_TEXTS },
    });
  });
});

describe('drift', () => {
  it.each([2, 10, 110])('alarms as often as it is allowed to on stationary traffic of %i labels', (labels) => {
    const random = generatorOf(labels);
    const alarms = { labels: 0, confidence: 0, embeddings: 0 };
    for (let check = 0; check < CHECKS; check++) {
      const traffic = { labels, shifted: 0 };
      const statistics = driftOf(draw(traffic, ROWS, random), draw(traffic, ROWS, random), OFTEN, check);
      for (const { name, alarm } of statistics) alarms[name] += Number(alarm);
    }
    // Of 200 draws at 5 %: 10 expected, 22 or more with probability 0.0004.
    for (const count of Object.values(alarms)) expect(count).toBeLessThan(22);
  });

  it('a fixed threshold of the stability index would alarm by itself where labels are many', () => {
    const random = generatorOf(1);
    const traffic = { labels: 110, shifted: 0 };
    const setting = { falseAlarmsPerYear: 1, minEffect: 0 };
    const [labels] = driftOf(draw(traffic, 250, random), draw(traffic, 250, random), setting);
    expect(labels).toMatchObject({ name: 'labels' });
    expect(labels!.stabilityIndex).toBeGreaterThan(0.25);
    expect(labels!.p).toBeGreaterThan(levelOf(setting));
  });

  it.each([2, 10, 110])('notices a new topic in three of ten texts among %i labels', (labels) => {
    const random = generatorOf(7);
    const before = draw({ labels, shifted: 0 }, WINDOW_TEXTS, random);
    const now = draw({ labels, shifted: 0.3 }, WINDOW_TEXTS, random);
    const statistics = driftOf(before, now, { falseAlarmsPerYear: 1, minEffect: 0.1 });
    expect(statistics.map(({ name, alarm }) => ({ name, alarm }))).toContainEqual({ name: 'labels', alarm: true });
  });

  it('a certain effect below the least one is no alarm', () => {
    const random = generatorOf(7);
    const before = draw({ labels: 2, shifted: 0 }, WINDOW_TEXTS, random);
    const now = draw({ labels: 2, shifted: 0.3 }, WINDOW_TEXTS, random);
    const setting = { falseAlarmsPerYear: 1, minEffect: 0.9 };
    for (const { p, alarm } of driftOf(before, now, setting)) expect([p > 0, alarm]).toEqual([true, false]);
  });

  it('texts that are all alike are no drift', () => {
    const rows = draw({ labels: 2, shifted: 0 }, 1, generatorOf(1));
    const same = Array.from({ length: ROWS }, () => rows[0]!);
    for (const { effect, p } of driftOf(same, same, OFTEN)) expect([effect, p]).toEqual([0, 1]);
  });
});
