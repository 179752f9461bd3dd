/** From what a caller sent to what is stored: the item, checked, with its keys. Pure. */
import { badInput, checkCharacters, FewloopError, type ErrorCode } from '../common/errors.js';
import type { KeyedItem } from '../storage/entities/item-columns.js';
import { labelsOf, validateItem, type ItemLimits } from '../task/item.js';
import { itemKey, splitGroup } from '../task/keys.js';
import type { Item, TaskDefinition } from '../task/types.js';
import { presentName } from './data-set.js';

/** Absent and null are the same, as GraphQL has it. */
export interface ItemInput {
  text: string;
  textPair?: string | null;
  choices?: string[] | null;
  fields?: Record<string, unknown> | null;
}

/** One of many inputs that was refused; the others were taken. */
export interface Refusal {
  index: number;
  code: ErrorCode;
  message: string;
}

const MAX_ID_LENGTH = 512;

/** Throws BAD_INPUT with the field at fault. */
export function keyedItem(definition: TaskDefinition, input: ItemInput, limits: ItemLimits): KeyedItem {
  const { text } = input;
  const textPair = input.textPair ?? null;
  const choices = input.choices ?? null;
  const fields = input.fields ?? null;
  const item: Item = {
    text,
    ...(textPair === null ? {} : { textPair }),
    ...(choices === null ? {} : { choices }),
    ...(fields === null ? {} : { fields }),
  };
  validateItem(definition, item, limits);
  return { itemKey: itemKey(item), splitGroup: splitGroup(text), text, textPair, choices, fields };
}

/** The producer's id; null where it gave none. Throws BAD_INPUT. */
export function checkedId(id: unknown): string | null {
  if (id === undefined || id === null) return null;
  if (typeof id !== 'string' || id === '') throw badInput('id', 'must be a string that is not empty');
  if (id.length > MAX_ID_LENGTH) throw badInput('id', `is longer than ${MAX_ID_LENGTH} characters`);
  checkCharacters('id', id);
  return id;
}

/**
 * The labels by their present names; where a text may have several or none, each once and in the task's order. Throws
 * BAD_INPUT where they are not the task's, or not one.
 */
export function checkedLabels(
  definition: TaskDefinition,
  item: Pick<KeyedItem, 'text' | 'choices'>,
  labels: unknown,
): string[] {
  if (!Array.isArray(labels) || labels.some((label) => typeof label !== 'string')) {
    throw badInput('labels', 'must be a list of strings');
  }
  if (definition.kind !== 'multi-label' && labels.length !== 1) {
    throw badInput('labels', `a ${definition.kind} task takes one label; these are ${labels.length}`);
  }
  const allowed = labelsOf(definition, {
    text: item.text,
    ...(item.choices === null ? {} : { choices: item.choices }),
  });
  const names = (labels as string[]).map((label) => {
    const name = definition.kind === 'multiple-choice' ? label : (presentName(definition, label) ?? label);
    if (allowed.includes(name)) return name;
    throw badInput('labels', `"${label.slice(0, 100)}" is not one of ${allowed.join(', ')}`);
  });
  return allowed.filter((name) => names.includes(name));
}

/** Runs `take` on each input; what it refuses is told, what else it throws is thrown. */
export function takeEach<I, O>(inputs: I[], take: (input: I, index: number) => O): { taken: O[]; refused: Refusal[] } {
  const taken: O[] = [];
  const refused: Refusal[] = [];
  inputs.forEach((input, index) => {
    try {
      taken.push(take(input, index));
    } catch (error) {
      if (!(error instanceof FewloopError)) throw error;
      refused.push({ index, code: error.code, message: error.message });
    }
  });
  return { taken, refused };
}
