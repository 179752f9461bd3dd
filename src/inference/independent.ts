/**
 * Multi-label: a text may have several labels or none, so that each label has a probability of its own, and what is a
 * distribution elsewhere is a list of independent probabilities here. Members combine by the same weighted mean.
 * Twin of the second half of `trainer/fewloop_trainer/scores.py`; `test/contract/scores.json` holds both to the same
 * numbers. All lists are in label order; logarithms are natural.
 */
import { sharesOf } from './combine.js';
import type { Disagreement } from './types.js';

/** Of a label for which the bundle names none. */
export const DEFAULT_THRESHOLD = 0.5;

/** Sigmoid of each score plus its offset. */
export function independentOf(scores: ArrayLike<number>, offsets: ArrayLike<number>): number[] {
  return Array.from(scores, (score, i) => sigmoid(score + (offsets[i] ?? 0)));
}

/** Log-odds over T, each label on its own; T over 1 moves probabilities towards a half. */
export function temperIndependent(probabilities: number[], temperature: number): number[] {
  if (temperature === 1) return probabilities;
  return probabilities.map((mean) => {
    const p = Math.min(1, Math.max(0, mean)); // a weighted mean of ones may be a hair over one
    return sigmoid((Math.log(p) - Math.log1p(-p)) / temperature);
  });
}

/** Which labels the text gets: those whose probability reaches its threshold. */
export function chosenOf(probabilities: number[], thresholds: number[]): boolean[] {
  return probabilities.map((p, i) => p >= thresholds[i]!);
}

/** Probability of the least certain of the decisions, a label taken or left. */
export function leastCertain(probabilities: number[], chosen: boolean[]): number {
  return Math.min(...probabilities.map((p, i) => (chosen[i] ? p : 1 - p)));
}

/** Mean over labels of the binary entropy, nats. */
export function meanBinaryEntropy(probabilities: number[]): number {
  return probabilities.reduce((sum, p) => sum + binaryEntropy(p), 0) / probabilities.length;
}

/**
 * Null for fewer than two members. A member dissents where it chooses another set of labels than the ensemble, both at
 * the temperature and the thresholds that serve; `voteEntropy` is the mean over labels of the binary entropy of the
 * votes over log 2, `jensenShannon` the mean over labels of the binary divergence, before temperature.
 */
export function independentDisagreement(
  members: { weight: number; distribution: number[] }[],
  combined: number[],
  thresholds: number[],
  temperature: number,
): Disagreement | null {
  if (members.length < 2) return null;
  const choose = (probabilities: number[]) => chosenOf(temperIndependent(probabilities, temperature), thresholds);
  const decided = choose(combined);
  const votes = members.map(({ distribution }) => choose(distribution));
  const dissenting = votes.filter((vote) => vote.some((taken, label) => taken !== decided[label])).length;
  const taken = combined.map((_, label) => votes.filter((vote) => vote[label]).length / members.length);
  const shares = sharesOf(members.map(({ weight }) => weight));
  const within = members.reduce((sum, { distribution }, m) => sum + shares[m]! * meanBinaryEntropy(distribution), 0);
  return {
    voters: members.length,
    dissenting,
    unanimous: dissenting === 0,
    voteEntropy: Math.min(1, Math.max(0, meanBinaryEntropy(taken) / Math.LN2)),
    // Rounding may leave it a hair below zero.
    jensenShannon: Math.max(0, meanBinaryEntropy(combined) - within),
  };
}

function binaryEntropy(p: number): number {
  const part = (share: number) => (share > 0 ? share * Math.log(share) : 0);
  return -part(p) - part(1 - p);
}

function sigmoid(x: number): number {
  // Never the exponential of a large number, which would overflow.
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}
