/** The shop reviews (shared/data/reviews). */
import { parse } from 'csv-parse/sync';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Review {
  text: string;
  label: string;
}

/** In an order of their own, each once. */
export function reviews(folder: string): Review[] {
  const file = readFileSync(join(folder, 'reviews/online_shopping_10_cats.csv'), 'utf8');
  const read = parse(file, { columns: true, bom: true, relax_quotes: true }) as { label: string; review: string }[];
  const distinct = new Map(read.map(({ label, review }) => [review.trim(), label]));
  const ranked = [...distinct].filter(([text]) => text.length > 3);
  const rank = (text: string) => createHash('sha256').update(text).digest('hex');
  return ranked.map(([text, label]) => ({ text, label, rank: rank(text) })).toSorted((a, b) => (a.rank < b.rank ? -1 : 1));
}
