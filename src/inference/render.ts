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
  | { kind: 'field'; text: string }
  /** The masks stand between the two. */
  | { kind: 'blank'; left: string; right: string };

/** Templates of the tasks that are served here. */
const parsed = new LRUCache<string, Piece[]>({ max: 1000, memoMethod: (template) => parseTemplate(template) });

/**
 * Throws BAD_INPUT where the item lacks a field that the template names, or the field its marker. The place of a label's
 * description is left open, so that an item is rendered once for all labels.
 */
export function render(template: string, item: Item): RenderedPiece[] {
  return parsed.memo(template).map((piece) => (piece.kind === 'field' ? renderField(piece, item) : piece));
}

/** The same, asking about one label by its description, which like a literal is never cut. BAD_INPUT where it has none. */
export function withHypothesis(pieces: RenderedPiece[], hypothesis: string | undefined): RenderedPiece[] {
  return pieces.map((piece) =>
    piece.kind === 'hypothesis' ? { kind: 'literal', text: hypothesis ?? missing('hypothesis') } : piece,
  );
}

function renderField({ name, blank }: Extract<Piece, { kind: 'field' }>, item: Item): RenderedPiece {
  const own = name === 'text' || name === 'textPair';
  const value: unknown = own ? item[name] : item.fields?.[name];
  const path = own ? name : `fields.${name}`;
  if (typeof value !== 'string') return missing(path);
  if (blank === null) return { kind: 'field', text: value };
  const at = value.indexOf(blank);
  if (at < 0) throw badInput(path, `must hold the marker ${blank}`);
  return { kind: 'blank', left: value.slice(0, at), right: value.slice(at + blank.length) };
}

function missing(path: string): never {
  throw badInput(path, 'is missing');
}
