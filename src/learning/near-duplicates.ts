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
/**
 * Leaders that a text is compared with, of each band. Texts of one template with other numbers share bands and are not
 * near: thousands may lead, and comparing each with each would take longer than scoring them.
 */
export const LEADERS_A_BAND = 64;
const NEGATIONS = /[^不没沒无無非未别別勿莫]/gu;

interface Shape {
  /** Pairs of neighbouring UTF-16 units of the normalised text. */
  shingles: Set<number>;
  negations: string;
}

export interface Sketch extends Shape {
  /** Near-duplicates share one of them; so may others. Of one task alone. */
  bands: number[];
}

export interface Grouped {
  nearGroup: string;
  /** By which later ones are compared with it; null: another one leads the group, or nothing is compared with it. */
  bands: number[] | null;
}

export interface Leader {
  nearGroup: string;
  text: string;
  bands: number[];
}

/** Null where it is compared with nothing: a pair, choices or fields, or too short a text. */
export function sketchOf(
  task: string,
  item: Pick<KeyedItem, 'text' | 'textPair' | 'choices' | 'fields'>,
): Sketch | null {
  if (item.textPair !== null || item.choices !== null || item.fields !== null) return null;
  const shape = shapeOf(item.text);
  return shape && { ...shape, bands: bandsOf(shape.shingles, hash32(task)) };
}

export function areNear(a: Shape, b: Shape): boolean {
  if (a.negations !== b.negations) return false;
  const [few, many] = a.shingles.size < b.shingles.size ? [a, b] : [b, a];
  const total = few.shingles.size + many.shingles.size;
  // So many at most: of texts that are not near, some are missing soon.
  let common = few.shingles.size;
  const isNear = () => common >= SIMILAR * (total - common);
  for (const shingle of few.shingles) {
    if (!isNear()) return false;
    if (!many.shingles.has(shingle)) common -= 1;
  }
  return isNear();
}

/**
 * Each item's group, in order: that of a leader that it is near to, of those who are known or came before it; or one of
 * its own, which it leads. Groups are near their leader, not all near each other, so that they do not drift. A band has
 * its first LEADERS_A_BAND leaders alone: whoever comes later is found by its other bands, if by any.
 */
export function groupNear(items: { item: KeyedItem; sketch: Sketch | null }[], known: readonly Leader[]): Grouped[] {
  const byBand = new Map<number, { nearGroup: string; shape: Shape }[]>();
  const leadersOf = (band: number) => byBand.get(band) ?? byBand.set(band, []).get(band)!;
  const lead = (bands: number[], leader: { nearGroup: string; shape: Shape }): number[] => {
    const free = bands.filter((band) => leadersOf(band).length < LEADERS_A_BAND);
    for (const band of free) leadersOf(band).push(leader);
    return free;
  };
  for (const { nearGroup, text, bands } of known) {
    const shape = shapeOf(text);
    if (shape) lead(bands, { nearGroup, shape });
  }
  return items.map(({ item, sketch }) => {
    if (!sketch) return { nearGroup: ownGroup(item), bands: null };
    const leaders = new Set(sketch.bands.flatMap(leadersOf));
    for (const { nearGroup, shape } of leaders) if (areNear(sketch, shape)) return { nearGroup, bands: null };
    const nearGroup = ownGroup(item);
    const bands = lead(sketch.bands, { nearGroup, shape: sketch });
    return { nearGroup, bands: bands.length > 0 ? bands : null };
  });
}

function shapeOf(original: string): Shape | null {
  const text = normalise(original);
  if (text.length < 2) return null;
  const shingles = new Set<number>();
  for (let i = 1; i < text.length; i++) shingles.add((text.charCodeAt(i - 1) << 16) | text.charCodeAt(i));
  return { shingles, negations: text.replaceAll(NEGATIONS, '') };
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
