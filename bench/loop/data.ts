/** The shop reviews as the loop's benchmark splits them: rows held out by hash, texts to stream, labels to start with. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parse } from 'csv-parse/sync';
import { splitGroup } from '../../src/task/keys.ts';

export interface Row {
  text: string;
  label: string;
}

export interface LoopData {
  heldOut: Row[];
  streamed: Row[];
  start: Row[];
}

export type Target = 'sentiment' | 'category';

/** Bucket 0 of twenty is kept for proofs: the base model never saw these texts (trainer keys.twentieth). */
const twentieth = (text: string) => parseInt(splitGroup(text).slice(0, 8), 16) % 20;

function rank(seed: number | string, text: string): string {
  return createHash('sha256').update(`${seed}:${text}`).digest('hex');
}

function byRank(rows: Row[], seed: number | string): Row[] {
  return rows.map((row) => ({ row, key: rank(seed, row.text) })).toSorted((a, b) => (a.key < b.key ? -1 : 1)).map(({ row }) => row);
}

/** `start` labels are balanced over the classes; the three parts share no split group. */
export function loopData(file: string, target: Target, seed: number, sizes = { heldOut: 2000, streamed: 10_000, start: 16 }): LoopData {
  const columns = parse(readFileSync(file, 'utf8'), { columns: true, bom: true, relax_quotes: true }) as Record<string, string>[];
  const seen = new Set<string>();
  const rows: Row[] = [];
  for (const column of columns) {
    const text = (column.review ?? '').trim();
    if ([...text].length < 4 || seen.has(splitGroup(text))) continue;
    seen.add(splitGroup(text));
    const label = target === 'category' ? (column.cat ?? '') : column.label === '1' ? 'positive' : 'negative';
    rows.push({ text, label });
  }
  // The held-out rows are the same for every seed, so that curves can be compared in pairs.
  const heldOut = byRank(rows.filter((row) => twentieth(row.text) === 0), 'held-out').slice(0, sizes.heldOut);
  const rest = byRank(rows.filter((row) => twentieth(row.text) !== 0), seed);
  const labels = [...new Set(rest.map((row) => row.label))].toSorted();
  const perLabel = Math.floor(sizes.start / labels.length);
  const start: Row[] = [];
  for (const [index, label] of labels.entries()) {
    const share = perLabel + (index < sizes.start % labels.length ? 1 : 0);
    start.push(...rest.filter((row) => row.label === label).slice(0, share));
  }
  const taken = new Set(start.map((row) => row.text));
  return { heldOut, start, streamed: rest.filter((row) => !taken.has(row.text)).slice(0, sizes.streamed) };
}
