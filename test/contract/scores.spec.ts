import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  applyTemperature,
  argmax,
  combineMembers,
  disagreementOf,
  distributionOf,
  labelScores,
} from '../../src/inference/combine.js';
import {
  chosenOf,
  independentDisagreement,
  independentOf,
  leastCertain,
  meanBinaryEntropy,
  temperIndependent,
} from '../../src/inference/independent.js';
import { fewestAsked, inTurn, isDecided } from '../../src/inference/in-turn.js';
import { nearest } from '../../src/inference/question.js';
import { matchPriors, meanDistribution } from '../../src/inference/priors.js';
import type { Disagreement } from '../../src/inference/types.js';

interface CombinedCase {
  wordCounts: number[];
  wordLogits: number[][];
  weights: number[];
  offsets: number[];
  scores: number[][];
  distributions: number[][];
  combined: number[];
  tempered: Record<string, number[]>;
  disagreement: Disagreement;
}

interface IndependentCase {
  scores: number[][];
  weights: number[];
  offsets: number[];
  thresholds: number[];
  distributions: number[][];
  combined: number[];
  served: Record<
    string,
    { tempered: number[]; chosen: boolean[]; leastCertain: number; entropy: number; disagreement: Disagreement }
  >;
}

const {
  combined,
  priors,
  independent,
  shortlist,
  inTurn: turns,
} = JSON.parse(readFileSync('test/contract/scores.json', 'utf8')) as {
  combined: CombinedCase[];
  priors: { scores: number[][]; prior: number[]; offsets: number[] }[];
  independent: IndependentCase[];
  inTurn: { weights: number[]; distributions: number[][][]; combined: number[][]; asked: number[] }[];
  shortlist: { vectors: number[][]; embeddings: number[][]; listed: Record<string, boolean[][]> };
};

function close(actual: number[], expected: number[], tolerance = 1e-9): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(tolerance));
}

function rounded(disagreement: Disagreement | null): Disagreement | null {
  const digits = (value: number) => Number(value.toFixed(9));
  return (
    disagreement && {
      ...disagreement,
      voteEntropy: digits(disagreement.voteEntropy),
      jensenShannon: digits(disagreement.jensenShannon),
    }
  );
}

describe('scores, as the trainer computes them', () => {
  it.each(combined)('$disagreement.voters members, words $wordCounts', (row) => {
    const scores = row.wordLogits.map((logits) => labelScores(logits, row.wordCounts));
    scores.forEach((values, i) => close(values, row.scores[i]!));
    const members = scores.map((values, i) => ({
      weight: row.weights[i]!,
      distribution: distributionOf(values, row.offsets),
    }));
    members.forEach((member, i) => close(member.distribution, row.distributions[i]!));
    const mean = combineMembers(members);
    close(mean, row.combined);
    for (const [temperature, expected] of Object.entries(row.tempered)) {
      close(applyTemperature(mean, Number(temperature)), expected);
    }
    const disagreement = disagreementOf(members, mean);
    // The contract's null for a single member is the service's alone.
    expect(rounded(disagreement)).toEqual(rounded(members.length < 2 ? null : row.disagreement));
  });

  it.each(independent)('labels on their own, $weights.length members', (row) => {
    const members = row.scores.map((values, i) => ({
      weight: row.weights[i]!,
      distribution: independentOf(values, row.offsets),
    }));
    members.forEach((member, i) => close(member.distribution, row.distributions[i]!));
    const mean = combineMembers(members);
    close(mean, row.combined);
    for (const [temperature, expected] of Object.entries(row.served)) {
      const tempered = temperIndependent(mean, Number(temperature));
      close(tempered, expected.tempered);
      const chosen = chosenOf(tempered, row.thresholds);
      expect(chosen).toEqual(expected.chosen);
      close([leastCertain(tempered, chosen), meanBinaryEntropy(tempered)], [expected.leastCertain, expected.entropy]);
      const disagreement = independentDisagreement(members, mean, row.thresholds, Number(temperature));
      expect(rounded(disagreement)).toEqual(rounded(members.length < 2 ? null : expected.disagreement));
    }
  });

  it.each(turns)('members in turn, $weights.length of them', ({ weights, distributions, combined: means, asked }) => {
    for (const [row, mean] of means.entries()) {
      const members = inTurn(weights.map((weight, m) => ({ weight, distribution: distributions[m]![row]! })));
      const said = members.map(({ distribution }) => distribution);
      const decided = said.findIndex((_, i) => isDecided(members, said.slice(0, i + 1)));
      const count = decided < 0 ? members.length : decided + 1;
      expect(count).toBe(asked[row]);
      expect(count).toBeGreaterThanOrEqual(fewestAsked(members));
      close(combineMembers(members.slice(0, count)), mean);
      expect(argmax(mean)).toBe(argmax(combineMembers(members)));
    }
  });

  it('the labels nearest to a text', () => {
    for (const [size, listed] of Object.entries(shortlist.listed)) {
      const found = shortlist.embeddings.map((embedding) => {
        const near = nearest(embedding, shortlist.vectors, Number(size));
        return shortlist.vectors.map((_, label) => near.includes(label));
      });
      expect(found).toEqual(listed);
    }
  });

  it.each(priors)('prior matching to $prior', (row) => {
    const offsets = matchPriors(row.scores, row.prior);
    close(offsets, row.offsets, 1e-4);
    expect(offsets).toHaveLength(row.prior.length);
    close(meanDistribution(row.scores, offsets), row.prior, 2e-6);
  });
});
