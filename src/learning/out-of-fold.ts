/**
 * What the trainer measured on its own labelled rows, each by members that had not seen it (cross-fitting). The gate
 * sets it beside the verdict, over the rows that the champion did not train on either; it decides nothing, because the
 * rows are not a random sample: a strategy chose most of them, by where the champion was in doubt. Pure.
 */
import { z } from 'zod';

import { inOrder } from '../inference/by-label.js';
import { chosenOf, DEFAULT_THRESHOLD } from '../inference/independent.js';
import type { TaskDefinition } from '../task/types.js';

export const OUT_OF_FOLD_NOTE =
  'challenger by cross-fitting on its labelled rows, champion on those of them that it did not train on; answers to ' +
  'questions chosen by the champion’s doubt are hard for the champion, so this favours the challenger';

const schema = z.looseObject({
  outOfFold: z.looseObject({
    rows: z.array(
      z.object({
        itemKey: z.string(),
        label: z.string().optional(),
        labels: z.array(z.string()).optional(),
        distribution: z.array(z.number()),
      }),
    ),
  }),
});

interface OutOfFold {
  rows: { itemKey: string; labels: string[]; distribution: number[] }[];
  /** The trainer's own figures: folds, accuracy and so on. */
  figures: Record<string, unknown>;
}

/** Null where the version's report has none: a zero-shot version's. */
export function outOfFoldOf(report: object): OutOfFold | null {
  const parsed = schema.safeParse(report);
  if (!parsed.success) return null;
  const { rows, ...figures } = parsed.data.outOfFold;
  return {
    rows: rows.map(({ label, labels, ...row }) => ({ ...row, labels: labels ?? (label === undefined ? [] : [label]) })),
    figures,
  };
}

/**
 * The label of the highest probability, or, where a text may have several, those that reach their thresholds; null
 * where `distribution`, in the order of the labels or of the item's choices, is not of them.
 */
export function answerOf(
  definition: TaskDefinition,
  thresholds: Record<string, number>,
  choices: string[] | null,
  distribution: number[],
): string[] | null {
  const labels = definition.kind === 'multiple-choice' ? (choices ?? []) : definition.labels.map(({ name }) => name);
  if (labels.length !== distribution.length || labels.length === 0) return null;
  if (definition.kind === 'multi-label') {
    const chosen = chosenOf(distribution, inOrder(thresholds, labels, DEFAULT_THRESHOLD));
    return labels.filter((_, i) => chosen[i]);
  }
  return [labels[distribution.indexOf(Math.max(...distribution))]!];
}
