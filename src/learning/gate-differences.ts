/**
 * Where two versions differ on the same rows: label by label, which confusions came and went, and which rows have
 * another answer now. Pure.
 */
import { isRight, type JudgedRow } from './gate-figures.js';

export interface LabelFigures {
  label: string;
  /** Rows that people gave the label. */
  rows: number;
  champion: PrecisionRecall | null;
  challenger: PrecisionRecall;
}

/** Null where nothing can be divided: no row was answered so, or none is so. */
export interface PrecisionRecall {
  precision: number | null;
  recall: number | null;
  f1: number | null;
}

export interface Confusion {
  given: string;
  answered: string;
  champion: number;
  challenger: number;
}

export interface Flips {
  /** Rows whose answer is another one; they are of one of three kinds. */
  changed: number;
  toRight: number;
  toWrong: number;
  /** Wrong before and wrong otherwise now. */
  stillWrong: number;
  /** Those from right to wrong first, then the surest of the challenger's. */
  examples: FlipExample[];
}

/** Without its text, which is only the example's to keep: what is forgotten there is not here. */
export interface FlipExample {
  itemKey: string;
  labels: string[];
  champion: string[];
  challenger: string[];
  /** Of the challenger's answer. */
  confidence: number;
}

/** A text with several labels or none. */
const joined = (labels: readonly string[]) => labels.toSorted().join(' + ') || '(none)';
const CONFUSIONS = 20;
const EXAMPLES = 20;

/** `champion` and `challenger` are of the same rows in the same order; labels in the order of `names`. */
export function labelFigures(
  champion: readonly JudgedRow[] | null,
  challenger: readonly JudgedRow[],
  names: readonly string[],
): LabelFigures[] {
  return names.map((label) => ({
    label,
    rows: challenger.filter(({ labels }) => labels.includes(label)).length,
    champion: champion && precisionRecall(champion, label),
    challenger: precisionRecall(challenger, label),
  }));
}

function precisionRecall(judged: readonly JudgedRow[], label: string): PrecisionRecall {
  let [hits, given, answered] = [0, 0, 0];
  for (const row of judged) {
    const [isGiven, isAnswered] = [row.labels.includes(label), row.answer.includes(label)];
    if (isGiven) given += 1;
    if (isAnswered) answered += 1;
    if (isGiven && isAnswered) hits += 1;
  }
  const share = (of: number, whole: number) => (whole === 0 ? null : of / whole);
  return { precision: share(hits, answered), recall: share(hits, given), f1: share(2 * hits, given + answered) };
}

/** Wrong answers by what was given and what was said, those first whose number changed most. */
export function confusionChanges(champion: readonly JudgedRow[], challenger: readonly JudgedRow[]): Confusion[] {
  const found = new Map<string, Confusion>();
  const count = (judged: readonly JudgedRow[], whose: 'champion' | 'challenger') => {
    for (const row of judged) {
      if (isRight(row)) continue;
      const [given, answered] = [joined(row.labels), joined(row.answer)];
      const key = JSON.stringify([given, answered]);
      const known = found.get(key) ?? { given, answered, champion: 0, challenger: 0 };
      known[whose] += 1;
      found.set(key, known);
    }
  };
  count(champion, 'champion');
  count(challenger, 'challenger');
  const change = (one: Confusion) => Math.abs(one.challenger - one.champion);
  return [...found.values()]
    .filter((one) => change(one) > 0)
    .toSorted((a, b) => change(b) - change(a) || b.challenger - a.challenger)
    .slice(0, CONFUSIONS);
}

/** `itemKeys`: of the rows, in their order. */
export function flipsOf(
  champion: readonly JudgedRow[],
  challenger: readonly JudgedRow[],
  itemKeys: readonly string[],
): Flips {
  const flips: Flips = { changed: 0, toRight: 0, toWrong: 0, stillWrong: 0, examples: [] };
  const examples: { example: FlipExample; lost: boolean }[] = [];
  challenger.forEach((now, i) => {
    const before = champion[i]!;
    if (joined(before.answer) === joined(now.answer)) return;
    const lost = isRight(before);
    flips.changed += 1;
    flips[lost ? 'toWrong' : isRight(now) ? 'toRight' : 'stillWrong'] += 1;
    const { labels, confidence } = now;
    const example = { itemKey: itemKeys[i]!, labels, champion: before.answer, challenger: now.answer, confidence };
    examples.push({ example, lost });
  });
  examples.sort((a, b) => Number(b.lost) - Number(a.lost) || b.example.confidence - a.example.confidence);
  flips.examples = examples.slice(0, EXAMPLES).map(({ example }) => example);
  return flips;
}
