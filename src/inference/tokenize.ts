/**
 * Step 2: rendered pieces become token ids. Every piece is tokenized on its own; fields are cut to fit `maxLength`,
 * literals and masks never. Twin of `trainer/fewloop_trainer/render.py`.
 */
import { LRUCache } from 'lru-cache';
import { badInput } from '../common/errors.js';
import type { RenderedPiece } from './render.js';
import type { Encoding, TextTokenizer } from './types.js';

/** Short enough to be a template's literal or a label word, which come with every request. */
const SHORT = 24;
const SHORT_TEXTS = 4000;

/** What is known of a tokenizer from one request to the next: its special tokens, and the ids of short texts. */
class Lexicon {
  private static readonly all = new WeakMap<TextTokenizer, Lexicon>();
  readonly short = new LRUCache<string, number[]>({ max: SHORT_TEXTS });
  readonly reserved: Set<number>;
  readonly cls: number;
  readonly sep: number;
  readonly mask: number;
  readonly unknown: number;

  private constructor(tokenizer: TextTokenizer) {
    const id = (token: string) => tokenizer.tokenToId(token) ?? missing(token);
    [this.cls, this.sep, this.mask, this.unknown] = [id('[CLS]'), id('[SEP]'), id('[MASK]'), id('[UNK]')];
    // A text that spells a special token must not become one.
    this.reserved = new Set([this.cls, this.sep, this.mask, id('[PAD]')]);
  }

  static of(tokenizer: TextTokenizer): Lexicon {
    const known = Lexicon.all.get(tokenizer) ?? new Lexicon(tokenizer);
    Lexicon.all.set(tokenizer, known);
    return known;
  }
}

/** Ids of texts, each distinct text tokenized once while this object lives (one request), short ones once for long. */
export class Vocabulary {
  private readonly known = new Map<string, number[]>();
  private readonly lexicon: Lexicon;
  readonly cls: number;
  readonly sep: number;
  readonly mask: number;
  readonly unknown: number;

  constructor(private readonly tokenizer: TextTokenizer) {
    this.lexicon = Lexicon.of(tokenizer);
    ({ cls: this.cls, sep: this.sep, mask: this.mask, unknown: this.unknown } = this.lexicon);
  }

  async learn(texts: Iterable<string>): Promise<void> {
    const { short, reserved, unknown } = this.lexicon;
    const fresh: string[] = [];
    for (const text of new Set(texts)) {
      const ids = this.known.get(text) ?? short.get(text);
      if (ids) this.known.set(text, ids);
      else fresh.push(text);
    }
    if (fresh.length === 0) return;
    const encoded = await this.tokenizer.encode(fresh);
    fresh.forEach((text, i) => {
      const ids = (encoded[i] ?? []).map((token) => (reserved.has(token) ? unknown : token));
      this.known.set(text, ids);
      if (text.length <= SHORT) short.set(text, ids);
    });
  }

  /** Of a text that `learn` has seen. */
  ids(text: string): number[] {
    const ids = this.known.get(text);
    if (ids === undefined) throw new Error('a text that was not learned');
    return ids;
  }
}

export function textsOf(pieces: RenderedPiece[]): string[] {
  return pieces.flatMap((piece) => {
    if (piece.kind === 'mask' || piece.kind === 'sep' || piece.kind === 'hypothesis') return [];
    return piece.kind === 'blank' ? [piece.left, piece.right] : [piece.text];
  });
}

/** Throws BAD_INPUT on `templates` where literals and masks alone are over `maxLength`. */
export function assemble(pieces: RenderedPiece[], vocabulary: Vocabulary, masks: number, maxLength: number): Encoding {
  const maskRun = Array.from({ length: masks }, () => vocabulary.mask);
  const sides = pieces.map((piece) => {
    if (piece.kind === 'mask') return [maskRun];
    if (piece.kind === 'sep') return [[vocabulary.sep]];
    return textsOf([piece]).map((text) => vocabulary.ids(text));
  });
  let budget = maxLength - 2;
  const lengths: number[] = [];
  pieces.forEach((piece, i) => {
    const length = (sides[i] ?? []).reduce((sum, ids) => sum + ids.length, 0);
    if (piece.kind === 'field' || piece.kind === 'blank') lengths.push(length);
    else budget -= length;
    if (piece.kind === 'blank') budget -= masks;
  });
  if (budget < 0) throw badInput('templates', `a template alone is longer than maxLength ${maxLength}`);

  const cut = cutLengths(lengths, budget).values();
  const ids = [vocabulary.cls];
  let firstSegment: number | undefined; // tokens up to the first {sep}'s [SEP]; what follows is the pair's second
  pieces.forEach((piece, i) => {
    const [first = [], second = []] = sides[i] ?? [];
    if (piece.kind === 'field') ids.push(...first.slice(0, cut.next().value));
    else if (piece.kind === 'blank') {
      const [left, right] = cutWindow(first, second, cut.next().value ?? 0);
      ids.push(...left, ...maskRun, ...right);
    } else ids.push(...first);
    if (piece.kind === 'sep') firstSegment ??= ids.length;
  });
  ids.push(vocabulary.sep);
  // Reserved ids are replaced inside fields and literals, so every [MASK] left is the template's own.
  const maskPositions = ids.flatMap((token, position) => (token === vocabulary.mask ? [position] : []));
  const typeIds = ids.map((_, position) => (position < (firstSegment ?? ids.length) ? 0 : 1));
  return { ids, typeIds, maskPositions };
}

/** The lengths after trimming the longest by one until their sum is within `budget`; of equals the later first. */
export function cutLengths(lengths: number[], budget: number): number[] {
  const within = (level: number) => lengths.reduce((sum, length) => sum + Math.min(length, level), 0);
  if (within(Number.POSITIVE_INFINITY) <= budget) return lengths;
  let [low, high] = [0, Math.max(...lengths)]; // the highest level with within(level) <= budget
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (within(middle) <= budget) low = middle;
    else high = middle - 1;
  }
  let rest = budget - within(low);
  return lengths.map((length) => {
    const extra = length > low && rest > 0 ? 1 : 0;
    rest -= extra;
    return Math.min(length, low) + extra;
  });
}

/** `budget` tokens around the masks, as even as the two sides allow. */
function cutWindow(left: number[], right: number[], budget: number): [number[], number[]] {
  const keep = Math.min(left.length, Math.max(budget >> 1, budget - right.length));
  return [left.slice(left.length - keep), right.slice(0, budget - keep)];
}

/**
 * Token ids of label words, [words][masks]; throws BAD_INPUT on `field` where nothing of one can be spelled or counts
 * differ. The linter lets no unknown character into a task's own words; a rare one of an idiom among an item's choices is
 * no reason to refuse the item.
 */
export function wordTokens(words: string[], vocabulary: Vocabulary, field: string): number[][] {
  const tokens = words.map((word) => vocabulary.ids(word));
  tokens.forEach((ids, i) => {
    if (ids.every((id) => id === vocabulary.unknown)) {
      throw badInput(field, `the tokenizer cannot spell "${words[i]}"`);
    }
  });
  if (new Set(tokens.map((ids) => ids.length)).size > 1) {
    throw badInput(field, `must have the same number of tokens: ${words.join(', ')}`);
  }
  return tokens;
}

function missing(token: string): never {
  throw new Error(`the tokenizer has no ${token}`);
}
