/**
 * How right the answers were that were really given: by the answers to questions drawn at random alone, each beside the
 * prediction as it was served. Pure.
 *
 * Sources: Wilson (1927) for intervals; calibration error as gate-figures.ts has it. Of fewer than 200 rows the
 * calibration error says mostly how few they are, and is not told.
 */
import { calibrationErrorOf, isRight, type JudgedRow } from './gate-figures.js';
import { wilson } from './gate-statistics.js';

export interface Accuracy {
  rows: number;
  right: number;
  /** Null without rows; the interval is [0, 1] then. */
  accuracy: number | null;
  /** 95 %. */
  low: number;
  high: number;
}

export interface LiveAccuracy extends Accuracy {
  /** Of the rows that people gave the label, those that were answered with it; labels with enough rows alone. */
  byLabel: (Accuracy & { label: string })[];
  /** Null where there are too few rows. */
  calibrationError: number | null;
}

export const CALIBRATION_ROWS = 200;
const LABEL_ROWS = 20;

/** `judged`: audit answers of one version; `names`: the task's labels, in its order. */
export function liveAccuracyOf(judged: readonly JudgedRow[], names: readonly string[]): LiveAccuracy {
  const right = judged.filter(isRight).length;
  const byLabel = names.flatMap((label) => {
    const rows = judged.filter(({ labels }) => labels.includes(label));
    if (rows.length < LABEL_ROWS) return [];
    const answered = rows.filter(({ answer }) => answer.includes(label)).length;
    return [{ label, ...accuracyOf(answered, rows.length) }];
  });
  const enough = judged.length >= CALIBRATION_ROWS;
  const calibrationError = enough ? calibrationErrorOf(judged)([...judged.keys()]) : null;
  return { ...accuracyOf(right, judged.length), byLabel, calibrationError };
}

function accuracyOf(right: number, rows: number): Accuracy {
  if (rows === 0) return { rows, right, accuracy: null, low: 0, high: 1 };
  const { point, low, high } = wilson(right, rows);
  return { rows, right, accuracy: point, low, high };
}
