/**
 * Reading a task file: YAML or JSON in, a TaskDefinition with every default out, or BAD_INPUT that names the path.
 * What needs a tokenizer is for the linter (lint.ts); what the service cannot train yet is for support.ts.
 */
import { parse as parseYaml } from 'yaml';
import type { z } from 'zod';
import { badInput } from '../common/errors.js';
import { canonicalJson, sha256 } from './keys.js';
import { knownKeys, taskFile } from './schema.js';
import { suggest } from './suggest.js';
import { parseTemplate } from './template.js';
import type { LabelDefinition, Method, TaskDefinition } from './types.js';

/** Throws BAD_INPUT; its `field` is the path of the first fault, its message lists them all. */
export function parseTask(source: string): TaskDefinition {
  const parsed = taskFile.safeParse(readSource(source));
  if (!parsed.success) {
    const [first, ...others] = parsed.error.issues.flatMap(faults);
    const more = others.map((fault) => `; ${fault.path}: ${fault.message}`).join('');
    throw badInput(first?.path ?? 'definition', `${first?.message ?? 'not a task file'}${more}`);
  }
  const { method, ...rest } = parsed.data;
  const definition: TaskDefinition = { ...rest, method: typeof method === 'string' ? [method] : [...new Set(method)] };
  checkLabels(definition);
  checkTemplates(definition);
  return definition;
}

/** The definition as the database, the bundle and the trainer keep it: canonical JSON (RFC 8785). */
export function canonicalDefinition(definition: TaskDefinition): string {
  return canonicalJson(definition);
}

/** SHA-256 (hex) of the canonical JSON: two files that say the same have the same digest. */
export function definitionDigest(definition: TaskDefinition): string {
  return sha256(canonicalDefinition(definition));
}

function readSource(source: string): unknown {
  if (!source.isWellFormed()) throw badInput('definition', 'holds half of a surrogate pair');
  let value: unknown;
  try {
    value = parseYaml(source.replace(/^\ufeff/u, ''), { maxAliasCount: 20, logLevel: 'error' });
  } catch (cause) {
    throw badInput(
      'definition',
      `neither YAML nor JSON: ${cause instanceof Error ? cause.message : String(cause)}`,
      cause,
    );
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw badInput('definition', 'a task file is a mapping with the keys name, kind, labels, templates');
  }
  let text: string;
  try {
    text = canonicalJson(value);
  } catch (cause) {
    throw badInput('definition', `no JSON could hold it: ${(cause as Error).message}`, cause);
  }
  if (/\\u0000|\\ud[89a-f]/iu.test(text)) throw badInput('definition', 'holds a character that cannot be stored');
  return value;
}

function faults(issue: z.core.$ZodIssue): { path: string; message: string }[] {
  if (issue.code !== 'unrecognized_keys') {
    const missing = issue.code === 'invalid_type' && issue.message.endsWith('received undefined');
    return [{ path: pathOf(issue.path) || 'definition', message: missing ? 'is missing' : lowerFirst(issue.message) }];
  }
  const known = knownKeys(issue.path);
  return issue.keys.map((key) => {
    const near = suggest(key, known);
    const hint = near === null ? `; known here: ${known.join(', ')}` : `; did you mean "${near}"?`;
    return { path: pathOf([...issue.path, key]), message: `unknown key${hint}` };
  });
}

function checkLabels(definition: TaskDefinition): void {
  const { kind, labels, method } = definition;
  if (kind === 'multiple-choice') {
    if (labels.length > 0) throw badInput('labels', "multiple-choice takes none: an item's choices are its labels");
    return;
  }
  if (labels.length === 0) throw badInput('labels', 'is missing');
  const taken = new Set<string>();
  labels.forEach((label, i) => {
    if (label.name !== label.name.trim()) throw badInput(`labels.${i}.name`, 'begins or ends with a space');
    // What bundles keep by label is read without it.
    if (label.name === '__proto__') throw badInput(`labels.${i}.name`, '"__proto__" cannot be the name of a label');
    if (taken.has(label.name)) throw badInput(`labels.${i}.name`, `"${label.name}" is there twice`);
    taken.add(label.name);
  });
  labels.forEach((label, i) => {
    label.was.forEach((earlier, j) => {
      if (taken.has(earlier)) throw badInput(`labels.${i}.was.${j}`, `"${earlier}" is already the name of a label`);
      taken.add(earlier);
    });
  });
  if (kind !== 'sentence-pair') checkDescriptions(method, labels);
  checkNegativeLabel(definition);
}

function checkNegativeLabel({ kind, labels, efl: { negativeLabel } }: TaskDefinition): void {
  if (negativeLabel === null) return;
  if (kind !== 'sentence-pair')
    throw badInput('efl.negativeLabel', `${kind} has no pairs that could be drawn at random`);
  if (!labels.some(({ name }) => name === negativeLabel)) {
    throw badInput('efl.negativeLabel', `"${negativeLabel}" is no label of the task`);
  }
}

/** Asked about a text alone, efl compares it with what each label says of it. */
function checkDescriptions(method: Method[], labels: LabelDefinition[]): void {
  if (!method.includes('efl')) return;
  labels.forEach(({ name, description }, i) => {
    if (description !== undefined) return;
    throw badInput(`labels.${i}.description`, `is missing: efl compares a text with the description of "${name}"`);
  });
}

/** The task file's templates are PET's; the pieces that members of other methods have besides are not for it. */
function checkTemplates({ templates }: TaskDefinition): void {
  templates.forEach((template, i) => {
    const own = parseTemplate(template).find((piece) => piece.kind === 'sep' || piece.kind === 'hypothesis');
    if (own)
      throw badInput(`templates.${i}`, `{${own.kind}} is not for PET's templates; methods add it where they need it`);
  });
}

function pathOf(path: PropertyKey[]): string {
  return path.map(String).join('.');
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
