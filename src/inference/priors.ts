/**
 * Label offsets without labels. A prompt's words are not equally likely to begin with; offsets in log space take that
 * out. Prior matching aims the mean prediction over unlabelled text at a prior; contextual calibration (Zhao et al.,
 * 2021, "Calibrate Before Use", section 4) aims the prediction for no text at all at the uniform distribution.
 */
import { distributionOf } from './combine.js';

const MAX_STEPS = 500;
const TOLERANCE = 1e-6;

/**
 * Offsets, one a label and of mean zero, under which the mean over rows of softmax(scores + offsets) is `prior`.
 * `scores` is [rows][labels], `prior` sums to one. The step is the log ratio of the two, damped where it overshoots.
 */
export function matchPriors(scores: ArrayLike<number>[], prior: number[]): number[] {
  let offsets = prior.map(() => 0);
  if (scores.length === 0) return offsets;
  const aim = normalised(prior.map((p) => Math.max(p, 1e-6)));
  let damping = 1;
  let last = Number.POSITIVE_INFINITY;
  for (let step = 0; step < MAX_STEPS; step++) {
    const mean = meanDistribution(scores, offsets);
    const difference = Math.max(...mean.map((p, i) => Math.abs(p - aim[i]!)));
    if (difference < TOLERANCE) break;
    if (difference > last) damping = Math.max(0.1, damping / 2);
    last = difference;
    offsets = centred(offsets.map((o, i) => o + damping * Math.log(aim[i]! / Math.max(mean[i]!, 1e-12))));
  }
  return offsets;
}

/** Offsets of mean zero that make the mean prediction for content-free items (`scores`, [rows][labels]) uniform. */
export function contextualCalibration(scores: ArrayLike<number>[]): number[] {
  const labels = scores[0]?.length ?? 0;
  if (labels === 0) return [];
  const mean = meanDistribution(scores, []);
  return centred(mean.map((p) => -Math.log(Math.max(p, 1e-12))));
}

/** Mean over rows of softmax(scores + offsets), in label order. */
export function meanDistribution(scores: ArrayLike<number>[], offsets: ArrayLike<number>): number[] {
  const sum = Array.from(scores[0] ?? [], () => 0);
  for (const row of scores) distributionOf(row, offsets).forEach((p, i) => (sum[i]! += p));
  return sum.map((p) => p / scores.length);
}

function normalised(values: number[]): number[] {
  const total = values.reduce((sum, value) => sum + value, 0);
  return values.map((value) => value / total);
}

function centred(values: number[]): number[] {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.map((value) => value - mean);
}
