/**
 * The statistics of the gate: two classifiers on the same rows. Pure.
 *
 * Sources
 * - Exact McNemar: the binomial test on the discordant pairs (McNemar 1947, Psychometrika 12:153-157).
 * - Interval of the paired difference: method 10 of Newcombe (1998), Statistics in Medicine 17:2635-2650:
 *   Wilson's score intervals of the two proportions, squared and added, with the continuity-corrected phi.
 *   It stays inside [-1, 1] and has a width even where no pair is discordant.
 * - Sample size of a difference: Connor (1987), Biometrics 43:207-211.
 * - Sample size of "not worse by a margin": Liu, Hsueh, Hsieh and Chen (2002), Statistics in Medicine 21:231-245
 *   (Wald-type, power at the difference seen).
 */
import binomialTest from '@stdlib/stats-binomial-test';

import type { VerdictName } from '../task/types.js';

export type GateVerdict = 'WORSE' | 'INCONCLUSIVE' | 'NOT_WORSE' | 'BETTER';

export const VERDICTS_IN_ORDER: readonly GateVerdict[] = ['WORSE', 'INCONCLUSIVE', 'NOT_WORSE', 'BETTER'];

const VERDICT_OF_NAME: Record<VerdictName, GateVerdict> = {
  worse: 'WORSE',
  inconclusive: 'INCONCLUSIVE',
  'not-worse': 'NOT_WORSE',
  better: 'BETTER',
};

const SIGNIFICANCE = 0.05;
/** Standard normal quantiles at 1 - SIGNIFICANCE / 2 and at the power of 80 %. */
const Z_SIGNIFICANCE = 1.959963984540054;
const Z_POWER = 0.8416212335729143;

/** Rows by who got them right; the four add up to the rows compared. */
export interface PairedCounts {
  bothRight: number;
  onlyChallengerRight: number;
  onlyChampionRight: number;
  bothWrong: number;
}

export interface Interval {
  low: number;
  high: number;
}

/** Rows that would decide with 80 % power if the difference seen is the true one; null: none would. */
export interface NeededRows {
  /** Until a two-sided test at 5 % tells the two apart. */
  toTellApart: number | null;
  /** Until the 95 % interval lies above minus the margin. */
  toBeNotWorse: number | null;
}

export interface PairedComparison {
  rows: number;
  counts: PairedCounts;
  championAccuracy: number | null;
  challengerAccuracy: number | null;
  /** Challenger's accuracy minus the champion's; null without rows. */
  difference: number | null;
  interval: Interval;
  pValue: number;
  margin: number;
  verdict: GateVerdict;
  neededRows: NeededRows;
}

/** `verdict` is at least what the task asks for. */
export function meets(verdict: GateVerdict, minimum: VerdictName): boolean {
  return VERDICTS_IN_ORDER.indexOf(verdict) >= VERDICTS_IN_ORDER.indexOf(VERDICT_OF_NAME[minimum]);
}

/** Counts of two lists of "was it right", in the same order of rows. */
export function pairedCounts(champion: readonly boolean[], challenger: readonly boolean[]): PairedCounts {
  if (champion.length !== challenger.length) throw new RangeError('paired lists differ in length');
  const counts = { bothRight: 0, onlyChallengerRight: 0, onlyChampionRight: 0, bothWrong: 0 };
  champion.forEach((right, index) => {
    if (right) counts[challenger[index] ? 'bothRight' : 'onlyChampionRight'] += 1;
    else counts[challenger[index] ? 'onlyChallengerRight' : 'bothWrong'] += 1;
  });
  return counts;
}

/**
 * The verdict, by the contract's words: NOT_WORSE where the interval lies above minus the margin; BETTER and WORSE
 * where the exact test tells the two apart. A loss that is certain but within the margin is NOT_WORSE: the margin is
 * what the task declared it can lose.
 */
export function compare(counts: PairedCounts, margin: number): PairedComparison {
  const rows = totalOf(counts);
  const pValue = exactMcNemar(counts);
  const interval = differenceInterval(counts);
  const gained = counts.onlyChallengerRight - counts.onlyChampionRight;
  const apart = pValue < SIGNIFICANCE;
  let verdict: GateVerdict = 'INCONCLUSIVE';
  if (apart && gained > 0) verdict = 'BETTER';
  else if (interval.low > -margin) verdict = 'NOT_WORSE';
  else if (apart) verdict = 'WORSE';
  return {
    rows,
    counts,
    championAccuracy: rows === 0 ? null : (counts.bothRight + counts.onlyChampionRight) / rows,
    challengerAccuracy: rows === 0 ? null : (counts.bothRight + counts.onlyChallengerRight) / rows,
    difference: rows === 0 ? null : gained / rows,
    interval,
    pValue,
    margin,
    verdict,
    neededRows: neededRows(counts, margin),
  };
}

/** Two-sided p-value of the exact McNemar test; 1 where no pair is discordant. */
export function exactMcNemar(counts: PairedCounts): number {
  const { onlyChallengerRight, onlyChampionRight } = counts;
  const discordant = onlyChallengerRight + onlyChampionRight;
  if (discordant === 0) return 1;
  // The smaller tail is the one that the library adds up without cancellation.
  const { pValue } = binomialTest(Math.min(onlyChallengerRight, onlyChampionRight), discordant);
  return Math.min(1, Math.max(0, pValue));
}

/** 95 % interval of challenger's minus champion's accuracy; [-1, 1] without rows. */
export function differenceInterval(counts: PairedCounts): Interval {
  const rows = totalOf(counts);
  if (rows === 0) return { low: -1, high: 1 };
  const challenger = wilson(counts.bothRight + counts.onlyChallengerRight, rows);
  const champion = wilson(counts.bothRight + counts.onlyChampionRight, rows);
  const phi = correctedPhi(counts);
  const difference = challenger.point - champion.point;
  const below = squareAndAdd(challenger.point - challenger.low, champion.high - champion.point, phi);
  const above = squareAndAdd(challenger.high - challenger.point, champion.point - champion.low, phi);
  return { low: Math.max(-1, difference - below), high: Math.min(1, difference + above) };
}

/**
 * Rows that would decide. The proportions are those seen, with half a row added to each cell (Agresti and Min 2005,
 * Statistics in Medicine 24:729-740), so that a comparison with no discordant pair does not claim certainty.
 */
export function neededRows(counts: PairedCounts, margin: number): NeededRows {
  const total = totalOf(counts) + 2;
  const discordant = (counts.onlyChallengerRight + counts.onlyChampionRight + 1) / total;
  const difference = (counts.onlyChallengerRight - counts.onlyChampionRight) / total;
  const spread = Math.sqrt(discordant - difference ** 2);
  const connor = Z_SIGNIFICANCE * Math.sqrt(discordant) + Z_POWER * spread;
  const liu = (Z_SIGNIFICANCE + Z_POWER) * spread;
  const room = difference + margin;
  return {
    toTellApart: difference === 0 ? null : Math.ceil((connor / difference) ** 2),
    toBeNotWorse: room <= 0 ? null : Math.ceil((liu / room) ** 2),
  };
}

function totalOf(counts: PairedCounts): number {
  return counts.bothRight + counts.onlyChallengerRight + counts.onlyChampionRight + counts.bothWrong;
}

/** Wilson's (1927) score interval of a proportion, 95 %; of at least one row. */
export function wilson(successes: number, rows: number): Interval & { point: number } {
  const point = successes / rows;
  const z2 = Z_SIGNIFICANCE ** 2;
  const centre = (point + z2 / (2 * rows)) / (1 + z2 / rows);
  const half = (Z_SIGNIFICANCE / (1 + z2 / rows)) * Math.sqrt((point * (1 - point)) / rows + z2 / (4 * rows ** 2));
  return { point, low: Math.min(point, centre - half), high: Math.max(point, centre + half) };
}

function correctedPhi(counts: PairedCounts): number {
  const { bothRight: a, onlyChallengerRight: b, onlyChampionRight: c, bothWrong: d } = counts;
  const product = (a + b) * (c + d) * (a + c) * (b + d);
  if (product === 0) return 0;
  const rows = totalOf(counts);
  const covariance = a * d - b * c;
  const corrected = covariance > 0 ? Math.max(covariance - rows / 2, 0) : covariance;
  return corrected / Math.sqrt(product);
}

function squareAndAdd(first: number, second: number, phi: number): number {
  return Math.sqrt(Math.max(0, first ** 2 - 2 * phi * first * second + second ** 2));
}
