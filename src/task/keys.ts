/**
 * Keys and splits: digests that say which items are the same, and which split a text belongs to.
 * Twin of `trainer/fewloop_trainer/keys.py`; `test/contract/keys.json` holds both to the same digests.
 */
import { hash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { Item, Split } from './types.js';

// Written out because JavaScript's and Python's `\s` differ (U+FEFF, U+0085, U+001C to U+001F).
// oxlint-disable-next-line no-control-regex, no-irregular-whitespace
const WHITESPACE = /[\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]+/gu;

/** NFKC, lower case, whitespace runs as one space, none at the ends. */
export function normalise(text: string): string {
  return text.normalize('NFKC').toLowerCase().replace(WHITESPACE, ' ').replace(/^ | $/gu, '');
}

/** SHA-256 (hex) of the normalised text: all items of one text are in one split. */
export function splitGroup(text: string): string {
  return sha256(normalise(text));
}

/** SHA-256 (hex) of everything that is classified, as canonical JSON (RFC 8785). */
export function itemKey(item: Item): string {
  const { text, textPair = null, choices = null, fields = null } = item;
  const all = [text, textPair, choices, fields];
  // Objects alone have an order to settle: of the rest this is the canonical form, and much sooner made.
  return sha256(fields === null ? JSON.stringify(all) : canonicalJson(all));
}

/**
 * SHA-256 (hex) of rows by their item keys and labels, whatever their order: of `[itemKey, labels]` as canonical JSON,
 * sorted, one a line. Unlabelled ones have no labels.
 */
export function dataSetDigest(rows: readonly { itemKey: string; labels: readonly string[] }[]): string {
  const lines = rows.map(({ itemKey: key, labels }) => canonicalJson([key, labels]));
  return sha256(lines.toSorted().join('\n'));
}

/** 70 % train, 10 % dev, 20 % test, for ever the same for one group. */
export function splitOf(group: string): Split {
  const bucket = Number.parseInt(sha256(`split:${group}`).slice(0, 8), 16) % 100;
  if (bucket < 70) return 'train';
  return bucket < 80 ? 'dev' : 'test';
}

/**
 * A uniform number in [0, 1) that depends on its arguments alone: admission to the audit slice, the rank in the
 * reservoir, whether two labelers are asked and who answers during a canary are the same however often a text is seen.
 */
export function fraction(kind: 'audit' | 'reservoir' | 'agreement' | 'canary', task: string, group: string): number {
  return Number.parseInt(sha256(`${kind}:${task}:${group}`).slice(0, 13), 16) / 2 ** 52;
}

export function canonicalJson(value: unknown): string {
  return canonicalize(value) ?? 'null';
}

export function sha256(text: string): string {
  return hash('sha256', text);
}
