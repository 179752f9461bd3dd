/** Step 6: the combined distribution, at its temperature, becomes the numbers of a prediction. */
import { applyTemperature, argmax, combineMembers, disagreementOf, entropy, sharesOf } from './combine.js';
import type { LabelScore, Member, MemberPrediction, PolicyCalibration, Prediction } from './types.js';

export interface ScoredMember {
  member: Member;
  /** In label order, offsets applied. */
  distribution: number[];
}

/** Everything of a prediction but the route and what names the model. */
export type Score = Omit<Prediction, 'route' | 'modelVersion' | 'taskRevision'>;

export function score(labels: string[], scored: ScoredMember[], calibration: PolicyCalibration): Score {
  const members = scored.map(({ member, distribution }) => ({ weight: member.weight, distribution }));
  const combined = combineMembers(members);
  const tempered = applyTemperature(combined, calibration.temperature);
  const ranked = rank(labels, tempered);
  const best = ranked[0]!;
  const shares = sharesOf(members.map((member) => member.weight));
  return {
    label: best.label,
    labels: [best.label],
    confidence: best.probability,
    calibrated: calibration.calibrated,
    margin: best.probability - (ranked[1]?.probability ?? 0),
    entropy: entropy(tempered),
    disagreement: disagreementOf(members, combined),
    distribution: ranked,
    members: scored.map(({ member, distribution }, i): MemberPrediction => ({
      member: member.id,
      weight: shares[i]!,
      label: labels[argmax(distribution)]!,
      distribution: rank(labels, distribution),
    })),
  };
}

/** Highest probability first; equals stay in the definition's order. */
function rank(labels: string[], distribution: number[]): LabelScore[] {
  return labels
    .map((label, i) => ({ label, probability: distribution[i]! }))
    .sort((a, b) => b.probability - a.probability);
}
