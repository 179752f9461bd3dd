/**
 * Templates: literal text, `{mask}`, `{field}`, and `{field|blank:MARKER}`, whose masks stand inside the field.
 * Members of other methods than PET have two more: `{sep}`, after which the second segment of a pair begins, and
 * `{hypothesis}`, the description of the label that a row asks about. They are made of the task's `input`.
 * Twin of `parse_template` in `trainer/fewloop_trainer/task.py`. Malformed templates are for the linter to report;
 * the parser takes every string.
 */
import type { TaskDefinition } from './types.js';

export type Piece =
  | { kind: 'literal'; text: string }
  | { kind: 'mask' }
  | { kind: 'sep' }
  | { kind: 'hypothesis' }
  | { kind: 'field'; name: string; /** Marker inside the field. */ blank: string | null };

const PLACEHOLDER = /\{([^{}]*)\}/gu;
const BLANK = 'blank:';

export function parseTemplate(template: string): Piece[] {
  const pieces: Piece[] = [];
  let start = 0;
  for (const match of template.matchAll(PLACEHOLDER)) {
    if (match.index > start) pieces.push({ kind: 'literal', text: template.slice(start, match.index) });
    pieces.push(placeholder(match[1] ?? ''));
    start = match.index + match[0].length;
  }
  if (start < template.length) pieces.push({ kind: 'literal', text: template.slice(start) });
  return pieces;
}

function placeholder(inside: string): Piece {
  const bar = inside.indexOf('|');
  const name = bar < 0 ? inside : inside.slice(0, bar);
  const option = bar < 0 ? '' : inside.slice(bar + 1);
  if (name === 'mask' || name === 'sep' || name === 'hypothesis') return { kind: name };
  return { kind: 'field', name, blank: option.startsWith(BLANK) ? option.slice(BLANK.length) : null };
}

/** What is wrong with the braces, in words; null where nothing is. */
export function templateSyntaxError(template: string): string | null {
  const rest = template.replace(PLACEHOLDER, '');
  if (/[{}]/u.test(rest)) return 'a brace without its partner';
  for (const match of template.matchAll(PLACEHOLDER)) {
    const inside = match[1] ?? '';
    const bar = inside.indexOf('|');
    const option = bar < 0 ? null : inside.slice(bar + 1);
    if (inside === '' || bar === 0) return `"${match[0]}" names no field`;
    if (option === null) continue;
    const special = /^(mask|sep|hypothesis)\|/u.exec(inside)?.[1];
    if (special !== undefined) return `"${match[0]}": {${special}} takes no option`;
    if (!option.startsWith(BLANK) || option === BLANK) return `"${match[0]}": the option is blank:MARKER`;
  }
  return null;
}

/** The fields that a template names, each once, with the marker that each must hold. */
export function templateFields(template: string): { name: string; blank: string | null }[] {
  const fields = parseTemplate(template).filter((piece) => piece.kind === 'field');
  return fields.filter((field, i) => fields.findIndex((f) => f.name === field.name && f.blank === field.blank) === i);
}

/** What members of other methods than PET see of an item. */
export function inputOf({ input, kind }: Pick<TaskDefinition, 'input' | 'kind'>): string {
  return input ?? (kind === 'sentence-pair' ? '{text}{sep}{textPair}' : '{text}');
}

/** All templates that items are rendered by, whichever method has them. */
export function templatesOf(definition: Pick<TaskDefinition, 'input' | 'kind' | 'method' | 'templates'>): string[] {
  const others = definition.method.some((method) => method !== 'pet');
  return others ? [...definition.templates, inputOf(definition)] : definition.templates;
}
