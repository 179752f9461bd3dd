import { describe, expect, it } from 'vitest';

import { kappaOf, slopeOf, stoppingOf } from './stopping.js';

const curve = (...points: [labels: number, right: number][]) =>
  points.map(([labels, right]) => ({ labels, right, rows: 1000 }));

describe('the slope', () => {
  it('is what twice the labels bring', () => {
    const slope = slopeOf(curve([50, 700], [100, 750], [200, 800]))!;
    expect(slope.perDoubling).toBeCloseTo(0.05, 3);
    expect(slope.low).toBeGreaterThan(0);
    expect(slope.high - slope.low).toBeCloseTo(2 * 1.96 * Math.sqrt((0.22 * 0.78) / 1000 / 2), 1);
  });

  it('needs three versions of different labels', () => {
    expect(slopeOf(curve([50, 700], [100, 750]))).toBeNull();
    expect(slopeOf(curve([50, 700], [50, 750], [50, 720]))).toBeNull();
    expect(slopeOf([{ labels: 50, rows: 0, right: 0 }, ...curve([50, 700], [100, 750])])).toBeNull();
  });

  it('is finite where a version had all right', () => {
    const slope = slopeOf(curve([50, 1000], [100, 1000], [200, 1000]))!;
    expect(slope.perDoubling).toBe(0);
    expect(slope.high).toBeGreaterThan(0);
  });
});

describe("Cohen's kappa", () => {
  it('is the textbook one', () => {
    // 20 both yes, 5 and 10 apart, 15 both no: observed 0.7, by chance 0.5.
    const say = (...counts: [string, string, number][]) =>
      counts.flatMap(([a, b, count]) => Array.from({ length: count }, () => [a, b] as const));
    const said = say(['y', 'y', 20], ['y', 'n', 5], ['n', 'y', 10], ['n', 'n', 15]);
    const [a, b] = [said.map(([one]) => one), said.map(([, other]) => other)];
    expect(kappaOf(a, b)).toBeCloseTo(0.4, 12);
  });

  it('is 1 where both say one thing throughout', () => {
    expect(kappaOf(['a', 'a'], ['a', 'a'])).toBe(1);
  });
});

describe('advice', () => {
  const rising = curve([50, 700], [100, 750], [200, 800]);
  const flat = curve([50, 800], [100, 801], [200, 800]);

  it('is to stop where predictions are stable and no gain is shown', () => {
    expect(stoppingOf(flat, [0.995, 0.99, 0.991, 0.2])).toMatchObject({ advice: 'STOP' });
    expect(stoppingOf([], [0.995, 0.99, 0.991])).toMatchObject({ advice: 'STOP', slope: null });
  });

  it('is to go on where the curve rises, or predictions change', () => {
    expect(stoppingOf(rising, [0.995, 0.99, 0.991])).toMatchObject({ advice: 'GO_ON' });
    expect(stoppingOf(flat, [0.995, 0.9, 0.991])).toMatchObject({ advice: 'GO_ON' });
    expect(stoppingOf(rising, [])).toMatchObject({ advice: 'GO_ON', agreement: null });
  });

  it('is none before there is anything to tell by', () => {
    expect(stoppingOf([], [])).toEqual({
      advice: 'UNKNOWN',
      statement: 'Three runs after the first tell; so far there is no curve.',
      slope: null,
      agreement: null,
    });
    expect(stoppingOf(flat, [0.999, 0.999]).advice).toBe('UNKNOWN');
  });
});
