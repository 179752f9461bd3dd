/**
 * Whether a task's traffic has changed: the window of texts after the active version's promotion against the present
 * one, both told by that version. Pure. Three statistics, each by a permutation test, so that many labels, of which each
 * has few texts, alarm no more often than two.
 *
 * The level: a year has `CHECKS_A_YEAR` checks of `STATISTICS` tests. If each alarms with probability at most `level`,
 * the expected number of checks that alarm is at most their product, whether tests and checks depend on each other or
 * not (linearity of the expectation); it is set to what the task allows.
 *
 * Effects are distances in [0, 1]: of labels and confidence the Jensen-Shannon distance without what chance adds (the
 * mean under the null is taken off the divergence), of embeddings the square root of MMD² over the mean
 * similarity within the windows: 0 where texts of both are as like each other as those of one, 1 where not at all.
 */
import { countCells, discrepancy, jensenShannon, kernelOf, quantileCells, stabilityIndex } from './divergence.js';
import { generatorOf, permutationTest } from './permutation.js';

/** What the active version says of a text. */
export interface DriftRow {
  /** The answer; several labels or none are one answer. */
  label: string;
  confidence: number;
  embedding: Float32Array;
}

export interface DriftSetting {
  falseAlarmsPerYear: number;
  /** In [0, 1]: a smaller effect is no alarm, however certain it is. */
  minEffect: number;
}

export interface DriftStatistic {
  name: 'labels' | 'confidence' | 'embeddings';
  /** Null for embeddings, which have no cells. */
  stabilityIndex: number | null;
  /** Jensen-Shannon distance; of embeddings the effect itself. What chance adds included. */
  distance: number;
  effect: number;
  p: number;
  alarm: boolean;
}

export const CHECKS_A_YEAR = 365;
const STATISTICS = 3;
const CONFIDENCE_CELLS = 10;
/** Texts of a window, at most and at least. */
export const WINDOW_TEXTS = 250;
export const LEAST_TEXTS = 50;

export function levelOf({ falseAlarmsPerYear }: DriftSetting): number {
  return Math.min(1, falseAlarmsPerYear / (CHECKS_A_YEAR * STATISTICS));
}

/**
 * Of rows in the order of their arrival the first ones and the last ones, as many of each; null where they are too few.
 */
export function windowsOf<T>(rows: readonly T[]): { reference: T[]; present: T[] } | null {
  const size = Math.min(WINDOW_TEXTS, Math.floor(rows.length / 2));
  if (size < LEAST_TEXTS) return null;
  return { reference: rows.slice(0, size), present: rows.slice(-size) };
}

/** Both windows have at least two rows. The same rows and seed give the same result. */
export function driftOf(
  reference: readonly DriftRow[],
  present: readonly DriftRow[],
  setting: DriftSetting,
  seed = 1,
): DriftStatistic[] {
  const rows = [...reference, ...present];
  const level = levelOf(setting);
  // Twice as many as the least that can reach the level.
  const maxDraws = Math.ceil(2 / level);
  const random = generatorOf(seed);
  const told = (statistic: Omit<DriftStatistic, 'alarm'>): DriftStatistic => ({
    ...statistic,
    alarm: statistic.p <= level && statistic.effect >= setting.minEffect,
  });

  const ofCells = (name: DriftStatistic['name'], cells: Int32Array, size: number): DriftStatistic => {
    const windows = (order: Int32Array) => [
      countCells(cells, size, order, 0, reference.length),
      countCells(cells, size, order, reference.length, rows.length),
    ];
    const statistic = (order: Int32Array) => {
      const [a, b] = windows(order);
      return jensenShannon(a!, b!);
    };
    const { observed, p, nullMean } = permutationTest(rows.length, statistic, maxDraws, random);
    const [a, b] = windows(Int32Array.from(rows.keys()));
    const effect = Math.sqrt(Math.max(0, observed - nullMean));
    return told({ name, stabilityIndex: stabilityIndex(a!, b!), distance: Math.sqrt(observed), effect, p });
  };

  const names = [...new Set(rows.map(({ label }) => label))];
  const labels = Int32Array.from(rows, ({ label }) => names.indexOf(label));
  const confidence = quantileCells(
    rows.map((row) => row.confidence),
    CONFIDENCE_CELLS,
  );
  const kernel = kernelOf(rows.map(({ embedding }) => embedding));
  const { p } = permutationTest(
    rows.length,
    (order) => discrepancy(kernel, order, reference.length).squared,
    maxDraws,
    random,
  );
  const { squared, within } = discrepancy(kernel, Int32Array.from(rows.keys()), reference.length);
  const apart = within > 0 ? Math.sqrt(Math.max(0, squared) / within) : 0;
  return [
    ofCells('labels', labels, names.length),
    ofCells('confidence', confidence, CONFIDENCE_CELLS),
    told({ name: 'embeddings', stabilityIndex: null, distance: apart, effect: apart, p }),
  ];
}
