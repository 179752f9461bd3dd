/**
 * Step 1: a template and an item become an ordered list of texts, mask places and segment ends. No tokenizer yet: a text
 * that several templates or items share is tokenized once (tokenize.ts).
 * Twin of `trainer/fewloop_trainer/render.py`; `test/contract/rendering.json` holds both to the same ids.
 */
import { LRUCache } from 'lru-cache';
import { badInput } from '../common/errors.js';
import { parseTemplate, type Piece } from '../task/template.js';
import type { Item } from '../task/types.js';

export type RenderedPiece =
  | { kind: 'literal'; text: string }
  | { kind: 'mask' }
  | { kind: 'sep' }
  /** The place of a label's description. */
  | { kind: 'hypothesis' }
  | { kind: 'field'; text: string; spans: Span[] }
  /** The masks stand between the two. */
  | { kind: 'blank'; left: string; right: string };

/** What a field holds of another one, and what stands before it there. */
export interface Span {
  before: string;
  text: string;
}

/** Templates of the tasks that are served here. */
const parsed = new LRUCache<string, Piece[]>({ max: 1000, memoMethod: (template) => parseTemplate(template) });

/**
 * Throws BAD_INPUT where the item lacks a field that the template names, or the field its marker. The place of a label's
 * description is left open, so that an item is rendered once for all labels. `cutsAtEnds`: fields have no spans.
 */
export function render(template: string, item: Item, cutsAtEnds = false): RenderedPiece[] {
  const pieces = parsed.memo(template);
  const further = pieces.flatMap((piece) => (piece.kind === 'field' && !isOwn(piece.name) ? [piece.name] : []));
  return pieces.map((piece) => (piece.kind === 'field' ? renderField(piece, item, cutsAtEnds ? [] : further) : piece));
}

/** The same, asking about one label by its description, which like a literal is never cut. BAD_INPUT where it has none. */
export function withHypothesis(pieces: RenderedPiece[], hypothesis: string | undefined): RenderedPiece[] {
  return pieces.map((piece) =>
    piece.kind === 'hypothesis' ? { kind: 'literal', text: hypothesis ?? missing('hypothesis') } : piece,
  );
}

function renderField({ name, blank }: Extract<Piece, { kind: 'field' }>, item: Item, further: string[]): RenderedPiece {
  const value: unknown = isOwn(name) ? item[name] : item.fields?.[name];
  const path = isOwn(name) ? name : `fields.${name}`;
  if (typeof value !== 'string') return missing(path);
  if (blank === null) {
    const others = further.filter((other) => other !== name);
    return { kind: 'field', text: value, spans: others.flatMap((other) => spanOf(value, item.fields, other)) };
  }
  const at = value.indexOf(blank);
  if (at < 0) throw badInput(path, `must hold the marker ${blank}`);
  return { kind: 'blank', left: value.slice(0, at), right: value.slice(at + blank.length) };
}

/**
 * The field `name` where the text holds it: where `NAME_index` says, beside a field `NAME_text` (FewCLUE's CLUEWSC, in
 * characters, of which a code point is one), and that is right; else where it comes first.
 */
function spanOf(text: string, fields: Item['fields'], name: string): Span[] {
  const value = fields?.[name];
  if (typeof value !== 'string' || value === '') return [];
  const index = name.endsWith('_text') ? fields?.[name.replace(/text$/u, 'index')] : undefined;
  if (Number.isInteger(index) && (index as number) >= 0) {
    const before = Array.from(text)
      .slice(0, index as number)
      .join('');
    if (text.startsWith(value, before.length)) return [{ before, text: value }];
  }
  const at = text.indexOf(value);
  return at < 0 ? [] : [{ before: text.slice(0, at), text: value }];
}

function isOwn(name: string): name is 'text' | 'textPair' {
  return name === 'text' || name === 'textPair';
}

function missing(path: string): never {
  throw badInput(path, 'is missing');
}
