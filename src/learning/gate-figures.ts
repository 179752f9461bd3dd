/**
 * Figures of the gate beside its verdict: accuracy, macro-F1, calibration and how well confidence ranks answers, of two
 * versions on the same rows, and the 95 %
 * interval of their difference by the paired bootstrap (Efron and Tibshirani 1993, chapter 13: percentiles over rows
 * drawn with replacement, the same ones for both). Pure; the draws are the same each time.
 *
 * Calibration error: over ten bins of equal mass (Nixon et al. 2019), as the trainer's evaluate.py has it. Drawn rows
 * keep the bins of all rows, so that a draw costs a sum.
 */
import { bootstrap, type Statistic } from '../common/bootstrap.js';
import type { Interval } from './gate-statistics.js';

/** What one version said of one row. */
export interface JudgedRow {
  /** Given by people. */
  labels: string[];
  answer: string[];
  /** Of the answer. */
  confidence: number;
  /** Multi-label: of each label, whether the row has it; else of the answer, whether it is right. */
  forecasts: { probability: number; hit: boolean }[];
}

export interface ComparedFigure {
  champion: number | null;
  challenger: number | null;
  /** Of challenger minus champion; null under ten rows. */
  interval: Interval | null;
}

const BINS = 10;
const LEAST_ROWS = 10;

export function isRight({ labels, answer }: Pick<JudgedRow, 'labels' | 'answer'>): boolean {
  return labels.length === answer.length && labels.every((label) => answer.includes(label));
}

/** `champion` and `challenger` are of the same rows in the same order. */
export function compareFigures(
  champion: readonly JudgedRow[] | null,
  challenger: readonly JudgedRow[],
): Record<'accuracy' | 'macroF1' | 'calibrationError' | 'augrc', ComparedFigure> {
  const figure = (statisticOf: (rows: readonly JudgedRow[]) => Statistic): ComparedFigure => {
    const rows = challenger.length;
    const own = statisticOf(challenger);
    const other = champion && statisticOf(champion);
    const all = Array.from({ length: rows }, (_, i) => i);
    return {
      champion: rows > 0 && other ? other(all) : null,
      challenger: rows > 0 ? own(all) : null,
      interval: other && rows >= LEAST_ROWS ? bootstrap(rows, (drawn) => own(drawn) - other(drawn)) : null,
    };
  };
  return {
    accuracy: figure(accuracyOf),
    macroF1: figure(macroF1Of),
    calibrationError: figure(calibrationErrorOf),
    augrc: figure(augrcOf),
  };
}

function accuracyOf(judged: readonly JudgedRow[]): Statistic {
  const right = judged.map((row) => (isRight(row) ? 1 : 0));
  return (drawn) => {
    let sum = 0;
    for (let i = 0; i < drawn.length; i++) sum += right[drawn[i]!]!;
    return sum / drawn.length;
  };
}

/**
 * Area under the generalised risk coverage curve (Traub et al. 2024): the mean over coverages of the share of all rows
 * that are covered and wrong, the surest covered first; rows of equal confidence are each as wrong as they are on
 * average. 0 is best; half the error rate is what a random order gets. As the trainer's comparison.py.
 */
export function augrcOf(judged: readonly Pick<JudgedRow, 'labels' | 'answer' | 'confidence'>[]): Statistic {
  const levels = [...new Set(judged.map(({ confidence }) => confidence))].toSorted((a, b) => b - a);
  const place = new Map(levels.map((confidence, i) => [confidence, i]));
  const rows = judged.map((row) => ({ level: place.get(row.confidence)!, wrong: isRight(row) ? 0 : 1 }));
  return (drawn) => {
    const count = new Int32Array(levels.length);
    const wrong = new Int32Array(levels.length);
    for (let i = 0; i < drawn.length; i++) {
      const row = rows[drawn[i]!]!;
      count[row.level]! += 1;
      wrong[row.level]! += row.wrong;
    }
    let [area, before] = [0, 0];
    for (let level = 0; level < levels.length; level++) {
      const [n, errors] = [count[level]!, wrong[level]!];
      // The sum of n cumulated errors that rise evenly from `before`.
      area += n * before + (errors * (n + 1)) / 2;
      before += errors;
    }
    return area / drawn.length ** 2;
  };
}

/** Mean F1 over the labels that occur among the rows, given or answered; 1 where none does. */
export function macroF1Of(judged: readonly Pick<JudgedRow, 'labels' | 'answer'>[]): Statistic {
  const names = [...new Set(judged.flatMap(({ labels, answer }) => [...labels, ...answer]))];
  const number = new Map(names.map((name, i) => [name, i]));
  const rows = judged.map(({ labels, answer }) => ({
    hits: labels.filter((name) => answer.includes(name)).map((name) => number.get(name)!),
    named: [...labels, ...answer].map((name) => number.get(name)!),
  }));
  return (drawn) => {
    const hits = new Int32Array(names.length);
    const named = new Int32Array(names.length);
    for (let i = 0; i < drawn.length; i++) {
      const row = rows[drawn[i]!]!;
      for (const name of row.hits) hits[name]! += 1;
      for (const name of row.named) named[name]! += 1;
    }
    let [sum, occurring] = [0, 0];
    named.forEach((count, i) => {
      if (count === 0) return;
      sum += (2 * hits[i]!) / count;
      occurring += 1;
    });
    return occurring === 0 ? 1 : sum / occurring;
  };
}

export function calibrationErrorOf(judged: readonly Pick<JudgedRow, 'forecasts'>[]): Statistic {
  const all = judged.flatMap(({ forecasts }, row) =>
    forecasts.map(({ probability, hit }) => ({ row, probability, hit })),
  );
  all.sort((a, b) => a.probability - b.probability);
  // A bin's size times its mean difference is the sum of its differences: that is all a draw has to add up.
  const excess = judged.map(() => new Float64Array(BINS));
  all.forEach(({ row, probability, hit }, rank) => {
    excess[row]![binOf(rank, all.length)]! += probability - (hit ? 1 : 0);
  });
  return (drawn) => {
    const sums = new Float64Array(BINS);
    let forecasts = 0;
    for (let i = 0; i < drawn.length; i++) {
      const row = drawn[i]!;
      forecasts += judged[row]!.forecasts.length;
      for (let bin = 0; bin < BINS; bin++) sums[bin]! += excess[row]![bin]!;
    }
    return forecasts === 0 ? 0 : sums.reduce((total, sum) => total + Math.abs(sum), 0) / forecasts;
  };
}

/** The first of `total` mod ten bins hold one more. */
function binOf(rank: number, total: number): number {
  const size = Math.floor(total / BINS);
  const larger = total % BINS;
  const inLarger = larger * (size + 1);
  return rank < inLarger ? Math.floor(rank / (size + 1)) : larger + Math.floor((rank - inLarger) / size);
}
