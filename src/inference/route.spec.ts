import { describe, expect, it } from 'vitest';
import { route } from './route.js';
import { score, type ScoredMember } from './score.js';
import type { Member } from './types.js';

const routing = { accept: 0.85, reviewContested: true, beforeCalibration: 'review' as const };
const calibrated = { temperature: 1, calibrated: true };

function said(...distributions: number[][]): ScoredMember[] {
  return distributions.map((distribution, i) => ({ member: { id: `m${i}`, weight: 1 } as Member, distribution }));
}

describe('score and route', () => {
  it('ranks labels, equals in the order of the definition', () => {
    const result = score(['a', 'b', 'c'], said([0.2, 0.4, 0.4]), calibrated);
    expect(result.distribution.map((entry) => entry.label)).toEqual(['b', 'c', 'a']);
    expect(result).toMatchObject({ label: 'b', labels: ['b'], confidence: 0.4, margin: 0, disagreement: null });
  });

  it('measures disagreement before temperature', () => {
    const members = said([0.9, 0.1], [0.3, 0.7]);
    const [cold, hot] = [1, 5].map((temperature) => score(['a', 'b'], members, { temperature, calibrated: true }));
    expect(hot!.disagreement).toEqual(cold!.disagreement);
    expect(hot!.confidence).toBeLessThan(cold!.confidence);
  });

  it.each([
    ['confident and unanimous', said([0.95, 0.05], [0.9, 0.1]), calibrated, {}, 'ACCEPT'],
    ['under the threshold', said([0.8, 0.2]), calibrated, {}, 'REVIEW'],
    ['contested', said([1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [0.4, 0.6]), calibrated, {}, 'REVIEW'],
    [
      'contested, which the task does not mind',
      said([1, 0], [1, 0], [0.49, 0.51]),
      calibrated,
      { reviewContested: false, accept: 0.8 },
      'ACCEPT',
    ],
    ['before calibration', said([0.99, 0.01]), { temperature: 1, calibrated: false }, {}, 'REVIEW'],
    [
      'before calibration, accepted',
      said([0.6, 0.4]),
      { temperature: 1, calibrated: false },
      { beforeCalibration: 'accept' as const },
      'ACCEPT',
    ],
  ])('%s', (_, members, calibration, change, expected) => {
    expect(route(score(['a', 'b'], members, calibration), { ...routing, ...change })).toBe(expected);
  });
});
