/** Items: what may be classified by a task, checked before anything is stored or scored. */
import { badInput, checkCharacters } from '../common/errors.js';
import { normalise } from './keys.js';
import { templateFields, templatesOf } from './template.js';
import type { Item, TaskDefinition } from './types.js';

export interface ItemLimits {
  /** UTF-16 units a text. */
  maxTextLength: number;
}

const MAX_CHOICES = 50;

/** What the item may be called: the task's labels, or its own choices. */
export function labelsOf(definition: TaskDefinition, item: Item): string[] {
  return definition.kind === 'multiple-choice' ? (item.choices ?? []) : definition.labels.map((label) => label.name);
}

/**
 * Throws BAD_INPUT whose field is `${fieldPrefix}text` and the like. Takes whatever a caller sent: types are checked,
 * not assumed. Absent and null are the same.
 */
export function validateItem(definition: TaskDefinition, item: Item, limits: ItemLimits, fieldPrefix = ''): void {
  const check = (field: string, value: unknown) => checkText(`${fieldPrefix}${field}`, value, limits);
  check('text', item.text);
  const named = fieldsOf(definition);
  if (definition.kind === 'sentence-pair' || named.some((field) => field.name === 'textPair')) {
    check('textPair', item.textPair);
  } else if (isGiven(item.textPair)) {
    throw badInput(`${fieldPrefix}textPair`, `a ${definition.kind} task takes none`);
  }
  checkChoices(definition, item, limits, fieldPrefix);
  checkFields(item, limits, fieldPrefix);
  for (const { name, blank } of named) {
    const own = name === 'text' || name === 'textPair';
    const value: unknown = own ? item[name] : item.fields?.[name];
    const path = own ? name : `fields.${name}`;
    if (!own) check(path, value);
    if (blank !== null && !(value as string).includes(blank)) {
      throw badInput(`${fieldPrefix}${path}`, `must hold the marker ${blank}`);
    }
  }
}

/** By definition: a stream asks for each of its records. */
const fieldsOfDefinitions = new WeakMap<TaskDefinition, ReturnType<typeof templateFields>>();

function fieldsOf(definition: TaskDefinition): ReturnType<typeof templateFields> {
  const known = fieldsOfDefinitions.get(definition);
  if (known) return known;
  const fields = templatesOf(definition).flatMap(templateFields);
  fieldsOfDefinitions.set(definition, fields);
  return fields;
}

function checkText(field: string, value: unknown, limits: ItemLimits): asserts value is string {
  if (!isGiven(value)) throw badInput(field, 'is missing');
  if (typeof value !== 'string') throw badInput(field, 'must be a string');
  if (value.length > limits.maxTextLength) {
    throw badInput(field, `is ${value.length} characters long; at most ${limits.maxTextLength} are taken`);
  }
  checkCharacters(field, value);
  // A letter or a digit is one in any normal form.
  if (!/[\p{L}\p{N}]/u.test(value) && normalise(value) === '') throw badInput(field, 'is empty');
}

function checkChoices(definition: TaskDefinition, { choices }: Item, limits: ItemLimits, fieldPrefix: string): void {
  const field = `${fieldPrefix}choices`;
  if (definition.kind !== 'multiple-choice') {
    if (isGiven(choices)) throw badInput(field, `a ${definition.kind} task takes none`);
    return;
  }
  if (!Array.isArray(choices)) throw badInput(field, isGiven(choices) ? 'must be a list of strings' : 'is missing');
  if (choices.length < 2 || choices.length > MAX_CHOICES) throw badInput(field, `must be 2 to ${MAX_CHOICES}`);
  choices.forEach((choice, i) => checkText(`${field}.${i}`, choice, limits));
  if (new Set(choices).size < choices.length) throw badInput(field, 'must differ from each other');
}

function checkFields({ fields }: Item, limits: ItemLimits, fieldPrefix: string): void {
  if (!isGiven(fields)) return;
  const field = `${fieldPrefix}fields`;
  if (typeof fields !== 'object' || Array.isArray(fields)) throw badInput(field, 'must be an object');
  let size = 0;
  const visit = (path: string, value: unknown, depth: number): void => {
    if (depth > 8) throw badInput(path, 'is nested too deep');
    if (typeof value === 'string') {
      size += value.length;
      checkCharacters(path, value);
    } else if (typeof value === 'number' && !Number.isFinite(value)) {
      throw badInput(path, 'must be a finite number');
    } else if (typeof value === 'object' && value !== null) {
      for (const [key, inner] of Object.entries(value)) {
        size += key.length + 1;
        checkCharacters(path, key);
        visit(`${path}.${key}`, inner, depth + 1);
      }
    }
    if (size > limits.maxTextLength) throw badInput(field, `hold more than ${limits.maxTextLength} characters`);
  };
  visit(field, fields, 0);
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}
