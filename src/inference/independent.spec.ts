import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryRunner, memoryModel } from '../../test/fixtures/memory-model.js';
import { combineMembers } from './combine.js';
import {
  chosenOf,
  independentDisagreement,
  independentOf,
  meanBinaryEntropy,
  temperIndependent,
} from './independent.js';
import { scoreIndependent } from './score.js';
import type { Member } from './types.js';

const member = (id: string, weight: number): Member => ({ ...memoryModel(new MemoryRunner()).members[0]!, id, weight });
const LABELS = ['a', 'b', 'c'];
const HALF = [0.5, 0.5, 0.5];
const sharp = { temperature: 1, calibrated: true };

describe('labels on their own', () => {
  it('have probabilities of their own, and offsets', () => {
    expect(independentOf([0, 0, -1e9], [0, Math.log(3), 0])).toEqual([0.5, expect.closeTo(0.75), 0]);
    expect(independentOf([800, -800], [])).toEqual([1, 0]);
  });

  it('a temperature is on the log-odds: it softens and keeps the order, and certainty stays', () => {
    expect(temperIndependent([0.9, 0.5, 0, 1], 2)).toEqual([expect.closeTo(0.75), 0.5, 0, 1]);
    const probability = fc.double({ min: 0.001, max: 0.999, noNaN: true });
    fc.assert(
      fc.property(probability, probability, fc.double({ min: 1.1, max: 5, noNaN: true }), (p, q, temperature) => {
        const [softP, softQ] = temperIndependent([p, q], temperature);
        expect(Math.abs(softP! - 0.5)).toBeLessThanOrEqual(Math.abs(p - 0.5) + 1e-12);
        expect((p - q) * (softP! - softQ!)).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  it('a mean that rounding takes over one is certain, not nothing', () => {
    expect(temperIndependent([1 + 2 ** -52, 1, -(2 ** -60), 0], 2)).toEqual([1, 1, 0, 0]);
  });

  it('disagreement is within its bounds, and none where members say the same', () => {
    const members = fc.array(
      fc.record({
        weight: fc.double({ min: 0.01, max: 1, noNaN: true }),
        distribution: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 3, maxLength: 3 }),
      }),
      { minLength: 2, maxLength: 6 },
    );
    fc.assert(
      fc.property(members, (all) => {
        const found = independentDisagreement(all, combineMembers(all), HALF, 1)!;
        expect(found.voteEntropy).toBeGreaterThanOrEqual(0);
        expect(found.voteEntropy).toBeLessThanOrEqual(1);
        expect(found.jensenShannon).toBeLessThanOrEqual(Math.LN2 + 1e-9);
        const same = all.map(({ weight }) => ({ weight, distribution: all[0]!.distribution }));
        const none = independentDisagreement(same, combineMembers(same), [0.3, 0.3, 0.3], 2)!;
        expect(none).toMatchObject({ dissenting: 0, unanimous: true, voteEntropy: 0 });
        expect(none.jensenShannon).toBeCloseTo(0, 9);
      }),
    );
  });
});

describe('scoreIndependent', () => {
  it('answers with every label over its threshold, best first', () => {
    const scored = [{ member: member('m', 1), distribution: [0.7, 0.9, 0.2] }];
    expect(scoreIndependent(LABELS, scored, sharp, HALF)).toMatchObject({
      label: 'b',
      labels: ['b', 'a'],
      confidence: expect.closeTo(0.7),
      margin: expect.closeTo(0.2),
      entropy: expect.closeTo(meanBinaryEntropy([0.7, 0.9, 0.2])),
      disagreement: null,
      distribution: [{ label: 'b' }, { label: 'a' }, { label: 'c' }],
      members: [{ member: 'm', label: 'b', labels: ['b', 'a'] }],
    });
  });

  it('may answer with none, and is as sure of that as of the likeliest label being absent', () => {
    const scored = [{ member: member('m', 1), distribution: [0.4, 0.1, 0.2] }];
    expect(scoreIndependent(LABELS, scored, sharp, HALF)).toMatchObject({
      label: null,
      labels: [],
      confidence: expect.closeTo(0.6),
      members: [{ label: 'a', labels: [] }],
    });
  });

  it('thresholds are each label’s own', () => {
    const scored = [{ member: member('m', 1), distribution: [0.4, 0.6, 0.2] }];
    expect(scoreIndependent(LABELS, scored, sharp, [0.3, 0.7, 0.5])).toMatchObject({
      labels: ['a'],
      confidence: expect.closeTo(0.4),
      margin: expect.closeTo(0.1),
    });
    expect(chosenOf([0.3], [0.3])).toEqual([true]);
  });

  it('a member dissents where it chooses another set', () => {
    const scored = [
      { member: member('m', 2), distribution: [0.9, 0.6, 0.1] },
      { member: member('n', 1), distribution: [0.8, 0.45, 0.1] },
    ];
    const { disagreement } = scoreIndependent(LABELS, scored, sharp, HALF);
    expect(disagreement).toMatchObject({ voters: 2, dissenting: 1, unanimous: false });
    expect(disagreement!.voteEntropy).toBeCloseTo(1 / 3);
  });
});
