/** Step 6: the combined distribution, at its temperature, becomes the numbers of a prediction. */
import type { TaskKind } from '../task/types.js';
import {
  applyTemperature,
  argmax,
  combineMembers,
  disagreementOf,
  distributionOf,
  entropy,
  sharesOf,
} from './combine.js';
import {
  chosenOf,
  independentDisagreement,
  independentOf,
  leastCertain,
  meanBinaryEntropy,
  temperIndependent,
} from './independent.js';
import type { LabelScore, Member, MemberPrediction, PolicyCalibration, Prediction } from './types.js';

export interface ScoredMember {
  member: Member;
  /** In label order, offsets applied. */
  distribution: number[];
}

/** Everything of a prediction but the route and what names the model. */
export type Score = Omit<Prediction, 'route' | 'modelVersion' | 'taskRevision'>;

/** A member's distribution: each label on its own where a text may have several, else they exclude each other. */
export function memberDistribution(kind: TaskKind, scores: ArrayLike<number>, offsets: ArrayLike<number>): number[] {
  return kind === 'multi-label' ? independentOf(scores, offsets) : distributionOf(scores, offsets);
}

export function score(labels: string[], scored: ScoredMember[], calibration: PolicyCalibration): Score {
  const members = scored.map(({ member, distribution }) => ({ weight: member.weight, distribution }));
  const combined = combineMembers(members);
  const tempered = applyTemperature(combined, calibration.temperature);
  const ranked = rank(labels, tempered);
  const best = ranked[0]!;
  return {
    label: best.label,
    labels: [best.label],
    confidence: best.probability,
    calibrated: calibration.calibrated,
    margin: best.probability - (ranked[1]?.probability ?? 0),
    entropy: entropy(tempered),
    disagreement: disagreementOf(members, combined),
    distribution: ranked,
    members: memberPredictions(labels, scored, (distribution) => [labels[argmax(distribution)]!]),
  };
}

/**
 * The same for labels that a text may have several of: `label` is the most probable one over its threshold, null where
 * none is; `confidence` is of the least certain of the decisions (a label taken: p, left: 1 − p), because one that is
 * wrong makes the answer wrong; `margin` is the distance of the nearest label to its threshold; `entropy` the mean of
 * the labels' binary entropies. `thresholds` are in label order.
 */
export function scoreIndependent(
  labels: string[],
  scored: ScoredMember[],
  { temperature, calibrated }: PolicyCalibration,
  thresholds: number[],
): Score {
  const members = scored.map(({ member, distribution }) => ({ weight: member.weight, distribution }));
  const combined = combineMembers(members);
  const tempered = temperIndependent(combined, temperature);
  const ranked = rank(labels, tempered);
  const chosen = chosenOf(tempered, thresholds);
  const places = new Map(labels.map((label, i) => [label, i]));
  const taken = (decisions: boolean[], order: LabelScore[]) =>
    order.map(({ label }) => label).filter((label) => decisions[places.get(label)!]);
  const names = taken(chosen, ranked);
  return {
    label: names[0] ?? null,
    labels: names,
    confidence: leastCertain(tempered, chosen),
    calibrated,
    margin: Math.min(...tempered.map((p, i) => Math.abs(p - thresholds[i]!))),
    entropy: meanBinaryEntropy(tempered),
    disagreement: independentDisagreement(members, combined, thresholds, temperature),
    distribution: ranked,
    members: memberPredictions(labels, scored, (distribution) =>
      taken(chosenOf(temperIndependent(distribution, temperature), thresholds), rank(labels, distribution)),
    ),
  };
}

/** `label` is a member's most probable one, `labels` what it would answer on its own. */
function memberPredictions(
  labels: string[],
  scored: ScoredMember[],
  answer: (distribution: number[]) => string[],
): MemberPrediction[] {
  const shares = sharesOf(scored.map(({ member }) => member.weight));
  return scored.map(({ member, distribution }, i) => ({
    member: member.id,
    weight: shares[i]!,
    label: labels[argmax(distribution)]!,
    labels: answer(distribution),
    distribution: rank(labels, distribution),
  }));
}

/** Highest probability first; equals stay in the definition's order. */
function rank(labels: string[], distribution: number[]): LabelScore[] {
  return labels
    .map((label, i) => ({ label, probability: distribution[i]! }))
    .sort((a, b) => b.probability - a.probability);
}
