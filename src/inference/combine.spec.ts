import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { applyTemperature, combineMembers, disagreementOf, distributionOf, entropy, labelScores } from './combine.js';
import { contextualCalibration, matchPriors, meanDistribution } from './priors.js';

const logit = fc.double({ min: -20, max: 20, noNaN: true });
const scores = fc.array(logit, { minLength: 3, maxLength: 3 });
const member = fc.record({ weight: fc.double({ min: 0.01, max: 1, noNaN: true }), scores });
const total = (values: number[]) => values.reduce((a, b) => a + b, 0);

describe('combine', () => {
  it('more words of the same score do not favour a label', () => {
    expect(labelScores([2, 2, 2, 2], [3, 1])).toEqual([expect.closeTo(2), expect.closeTo(2)]);
  });

  it('is a distribution, within what the members say, and disagreement is within its bounds', () => {
    fc.assert(
      fc.property(fc.array(member, { minLength: 2, maxLength: 9 }), (all) => {
        const members = all.map((m) => ({ weight: m.weight, distribution: distributionOf(m.scores, []) }));
        const combined = combineMembers(members);
        expect(total(combined)).toBeCloseTo(1, 9);
        combined.forEach((p, label) => {
          const said = members.map((m) => m.distribution[label]!);
          expect(p).toBeGreaterThanOrEqual(Math.min(...said) - 1e-12);
          expect(p).toBeLessThanOrEqual(Math.max(...said) + 1e-12);
        });
        const disagreement = disagreementOf(members, combined)!;
        expect(disagreement.voteEntropy).toBeGreaterThanOrEqual(0);
        expect(disagreement.voteEntropy).toBeLessThanOrEqual(1);
        expect(disagreement.jensenShannon).toBeGreaterThanOrEqual(0);
        expect(disagreement.jensenShannon).toBeLessThanOrEqual(Math.log(3) + 1e-9);
        expect(disagreement.unanimous).toBe(disagreement.dissenting === 0);
      }),
    );
  });

  it('only the ratio of weights counts', () => {
    const members = (scale: number) => [
      { weight: scale, distribution: [0.9, 0.1] },
      { weight: 3 * scale, distribution: [0.1, 0.9] },
    ];
    expect(combineMembers(members(1))).toEqual([expect.closeTo(0.3), expect.closeTo(0.7)]);
    expect(combineMembers(members(7))).toEqual([expect.closeTo(0.3), expect.closeTo(0.7)]);
    expect(combineMembers(members(0))).toEqual([0.5, 0.5]);
  });

  it('a temperature over one softens and keeps the order', () => {
    fc.assert(
      fc.property(scores, fc.double({ min: 1.1, max: 5, noNaN: true }), (values, temperature) => {
        const distribution = distributionOf(values, []);
        const softer = applyTemperature(distribution, temperature);
        expect(total(softer)).toBeCloseTo(1, 9);
        expect(entropy(softer)).toBeGreaterThanOrEqual(entropy(distribution) - 1e-9);
      }),
    );
    expect(applyTemperature([1, 0], 2)).toEqual([expect.closeTo(1), expect.closeTo(0)]);
  });

  it('split votes: half of the voters dissent', () => {
    const members = [
      { weight: 2, distribution: [0.9, 0.1] },
      { weight: 1, distribution: [0.2, 0.8] },
    ];
    expect(disagreementOf(members, combineMembers(members))).toMatchObject({
      voters: 2,
      dissenting: 1,
      unanimous: false,
      voteEntropy: 1,
    });
  });
});

describe('priors', () => {
  it('the mean prediction becomes the prior', () => {
    const rows = fc.array(scores, { minLength: 5, maxLength: 60 });
    const spread = fc.constantFrom<number[][]>([1 / 3, 1 / 3, 1 / 3], [0.6, 0.3, 0.1]);
    const mild = rows.map((all) => all.map((row) => row.map((value) => value / 5)));
    fc.assert(
      fc.property(mild, spread, (all, prior) => {
        const offsets = matchPriors(all, prior);
        meanDistribution(all, offsets).forEach((p, i) => expect(p).toBeCloseTo(prior[i]!, 3));
        expect(total(offsets)).toBeCloseTo(0, 9);
      }),
    );
  });

  it('no rows, no offsets', () => {
    expect(matchPriors([], [0.5, 0.5])).toEqual([0, 0]);
    expect(contextualCalibration([])).toEqual([]);
  });

  it('contextual calibration makes the answer to nothing uniform', () => {
    const empty = [3, -1, 0];
    distributionOf(empty, contextualCalibration([empty])).forEach((p) => expect(p).toBeCloseTo(1 / 3, 9));
  });
});
