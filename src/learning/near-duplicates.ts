/**
 * Texts that are nearly the same, so that they are asked about once. MinHash over pairs of characters (Broder 1997), in
 * bands (Leskovec et al., "Mining of Massive Datasets", section 3.4), finds who may be; the Jaccard similarity of the
 * pairs decides. Plain texts alone: of a sentence pair or a list of choices the small difference is the question. So it
 * is where one of two texts is negated. Pure.
 */
import { canonicalJson, normalise, sha256 } from '../task/keys.js';
import type { KeyedItem } from '../storage/entities/item-columns.js';

/** From there on texts are near-duplicates. */
const SIMILAR = 0.85;
/** At a similarity of 0.85 a pair is missed once in 84. */
const BANDS = 6;
const ROWS = 4;
const NEGATIONS = /[^不没沒无無非未别別勿莫]/gu;

export interface Sketch {
  /** Pairs of neighbouring UTF-16 units of the normalised text. */
  shingles: Set<number>;
  negations: string;
  /** Near-duplicates share one of them; so may others. Of one task alone. */
  bands: number[];
}

export interface Grouped {
  nearGroup: string;
  /** Null: another one leads the group, or nothing is compared with it. */
  bands: number[] | null;
}

export interface Leader {
  nearGroup: string;
  text: string;
}

/** Null where it is compared with nothing: a pair, choices or fields, or too short a text. */
export function sketchOf(
  task: string,
  item: Pick<KeyedItem, 'text' | 'textPair' | 'choices' | 'fields'>,
): Sketch | null {
  if (item.textPair !== null || item.choices !== null || item.fields !== null) return null;
  const text = normalise(item.text);
  if (text.length < 2) return null;
  const shingles = new Set<number>();
  for (let i = 1; i < text.length; i++) shingles.add((text.charCodeAt(i - 1) << 16) | text.charCodeAt(i));
  return { shingles, negations: text.replaceAll(NEGATIONS, ''), bands: bandsOf(shingles, hash32(task)) };
}

export function areNear(a: Sketch, b: Sketch): boolean {
  if (a.negations !== b.negations) return false;
  const [few, many] = a.shingles.size < b.shingles.size ? [a, b] : [b, a];
  if (few.shingles.size < SIMILAR * many.shingles.size) return false;
  let common = 0;
  for (const shingle of few.shingles) if (many.shingles.has(shingle)) common += 1;
  return common >= SIMILAR * (a.shingles.size + b.shingles.size - common);
}

/**
 * Each item's group, in order: that of a leader that it is near to, of those who are known or came before it; or one of
 * its own, which it leads. Groups are near their leader, not all near each other, so that they do not drift.
 */
export function groupNear(
  task: string,
  items: { item: KeyedItem; sketch: Sketch | null }[],
  known: readonly Leader[],
): Grouped[] {
  const byBand = new Map<number, { nearGroup: string; sketch: Sketch }[]>();
  const lead = (leader: { nearGroup: string; sketch: Sketch }): void => {
    for (const band of leader.sketch.bands) byBand.set(band, [...(byBand.get(band) ?? []), leader]);
  };
  for (const { nearGroup, text } of known) {
    const sketch = sketchOf(task, { text, textPair: null, choices: null, fields: null });
    if (sketch) lead({ nearGroup, sketch });
  }
  return items.map(({ item, sketch }) => {
    const leaders = sketch?.bands.flatMap((band) => byBand.get(band) ?? []) ?? [];
    const leader = leaders.find((other) => areNear(sketch!, other.sketch));
    if (leader) return { nearGroup: leader.nearGroup, bands: null };
    const nearGroup = ownGroup(item);
    if (sketch) lead({ nearGroup, sketch });
    return { nearGroup, bands: sketch?.bands ?? null };
  });
}

/** The same for what asks the same: up to case and spaces of the text, with the same pair, choices and fields. */
function ownGroup({ splitGroup, textPair, choices, fields }: KeyedItem): string {
  return sha256(canonicalJson([splitGroup, textPair, choices, fields])).slice(0, 16);
}

function bandsOf(shingles: Set<number>, seed: number): number[] {
  const least = Array.from({ length: BANDS * ROWS }, () => 0xffffffff);
  for (const shingle of shingles) {
    for (let i = 0; i < least.length; i++) {
      const value = mix(shingle ^ Math.imul(i + 1, 0x9e3779b1)) >>> 0;
      if (value < least[i]!) least[i] = value;
    }
  }
  return Array.from({ length: BANDS }, (_, band) => {
    const rows = least.slice(band * ROWS, (band + 1) * ROWS);
    return rows.reduce((hash, value) => mix(hash ^ value), mix(seed ^ band)) | 0;
  });
}

/** MurmurHash3's finalizer (Appleby): a bijection of 32 bits in which every bit of the input counts. */
function mix(value: number): number {
  let hash = value;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

function hash32(text: string): number {
  return Number.parseInt(sha256(text).slice(0, 8), 16) | 0;
}
