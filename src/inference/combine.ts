/**
 * Step 5: word logits become member distributions, members one distribution, and how far they disagree.
 * Twin of `trainer/fewloop_trainer/scores.py`; `test/contract/scores.json` holds both to the same numbers.
 * All distributions are in label order; logarithms are natural.
 */
import type { Disagreement } from './types.js';

/**
 * A score a label: log-mean-exp over its words' logits, so that a label with more words is not favoured.
 * `wordLogits` are in the order of labels, `wordCounts` says how many words each label has.
 */
export function labelScores(wordLogits: ArrayLike<number>, wordCounts: number[]): number[] {
  let start = 0;
  return wordCounts.map((count) => {
    const logits = Array.from({ length: count }, (_, i) => wordLogits[start + i]!);
    start += count;
    return logSumExp(logits) - Math.log(count);
  });
}

/** Softmax of scores plus offsets. */
export function distributionOf(scores: ArrayLike<number>, offsets: ArrayLike<number>): number[] {
  const shifted = Array.from(scores, (score, i) => score + (offsets[i] ?? 0));
  const normaliser = logSumExp(shifted);
  return shifted.map((score) => Math.exp(score - normaliser));
}

/** Weighted mean of distributions; weights need not sum to one. */
export function combineMembers(members: { weight: number; distribution: number[] }[]): number[] {
  const shares = sharesOf(members.map((member) => member.weight));
  const labels = members[0]?.distribution.length ?? 0;
  return Array.from({ length: labels }, (_, label) =>
    members.reduce((sum, { distribution }, m) => sum + shares[m]! * distribution[label]!, 0),
  );
}

/** p^(1/T), normalised; T over 1 softens. */
export function applyTemperature(distribution: number[], temperature: number): number[] {
  if (temperature === 1) return distribution;
  return distributionOf(
    distribution.map((p) => Math.log(Math.max(p, 1e-300)) / temperature),
    [],
  );
}

/** Null for fewer than two members. `combined` is `combineMembers(members)`, before temperature. */
export function disagreementOf(
  members: { weight: number; distribution: number[] }[],
  combined: number[],
): Disagreement | null {
  if (members.length < 2) return null;
  const shares = sharesOf(members.map((member) => member.weight));
  const votes = combined.map(() => 0);
  for (const { distribution } of members) votes[argmax(distribution)]!++;
  const dissenting = members.filter(({ distribution }) => argmax(distribution) !== argmax(combined)).length;
  const most = Math.log(Math.min(members.length, combined.length));
  const within = members.reduce((sum, { distribution }, m) => sum + shares[m]! * entropy(distribution), 0);
  return {
    voters: members.length,
    dissenting,
    unanimous: dissenting === 0,
    voteEntropy: most > 0 ? bounded(entropy(votes.map((count) => count / members.length)) / most) : 0,
    // Rounding may leave it a hair below zero.
    jensenShannon: Math.max(0, entropy(combined) - within),
  };
}

/** Nats. */
export function entropy(distribution: number[]): number {
  return distribution.reduce((sum, p) => (p > 0 ? sum - p * Math.log(p) : sum), 0);
}

/** Index of the largest; of equals the first, which is the definition's order. */
export function argmax(values: number[]): number {
  return values.reduce((best, value, i) => (value > values[best]! ? i : best), 0);
}

/** Weights as shares of one; uniform where they sum to nothing. */
export function sharesOf(weights: number[]): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => (total > 0 ? weight / total : 1 / weights.length));
}

/** Rounding may leave a share a hair outside [0, 1]. */
function bounded(value: number): number {
  return Math.min(1, Math.max(0, value));
}

function logSumExp(values: number[]): number {
  const most = Math.max(...values);
  return most + Math.log(values.reduce((sum, value) => sum + Math.exp(value - most), 0));
}
