/**
 * Step 3: rows become batches. Pure: `nextTurn` says which pending row leads the next batch, `takeBatch` which go with
 * it, `packBatch` lays them out.
 *
 * Interactive work leads before bulk, bulk before background (scores that nobody waits for). Bulk that has waited two
 * seconds has a share: after three batches that others led the next is its own; background that has waited ten seconds,
 * after fifteen. So at least 11 of 16 batches are led by interactive work while any waits, and no class starves:
 * with k rows of its class before it, a row goes within the first k + 1 batches that its class leads.
 *
 * A batch holds rows of one group (runner, graph, masks, words), of similar length, and at most `maxBatchTokens` padded
 * tokens (rows times the longest) and 512 rows; a row longer than that goes alone. Of similar length: a row joins where
 * what it adds in padding is less than a batch of its own would cost. The order that is kept: the oldest row of a class
 * leads, and rows of equal class, group and length go in order of arrival.
 */
import { exactShape, MAX_ROWS, tokensIn, type ShapeOf } from './shapes.js';
import type { Encoding, HostBatch, Priority } from './types.js';

/**
 * Of the budget: padding that a row may add. The budget is where a batch's own cost has become a small part of it
 * (registry/batch-budget.ts); less than that, because a row that is left may join others of its length.
 */
const PADDING_SHARE = 1 / 32;

type Yielding = Exclude<Priority, 'interactive'>;

const URGENCY: Record<Priority, number> = { interactive: 0, bulk: 1, background: 2 };
const YIELDING = ['bulk', 'background'] as const;
/** From when on a class that yields has a share, and after how many batches of others its turn comes. */
const SHARES: Record<Yielding, { afterMs: number; passes: number }> = {
  bulk: { afterMs: 2000, passes: 3 },
  background: { afterMs: 10_000, passes: 15 },
};
/** Of the batches, while interactive work waits. */
export const RESERVED_SHARE = 1 - YIELDING.reduce((sum, priority) => sum + 1 / (SHARES[priority].passes + 1), 0);

/** One rendering to score: `words` are the label words' token ids, [words][masks]; none where it has no masks. */
export interface Row {
  graph: string;
  encoding: Encoding;
  words: number[][];
}

export interface Pending {
  row: Row;
  runner: object;
  /** Rows of a runner with the same group may share a batch. */
  group: string;
  priority: Priority;
  /** Monotonic milliseconds. */
  enqueuedAtMs: number;
}

/** Batches that others led while a class had a share. */
export type Passed = Record<Yielding, number>;

export const NONE_PASSED: Passed = { bulk: 0, background: 0 };

export interface Turn<P extends Pending> {
  /** The row that goes next. */
  lead: P;
  /** For the turn after it. */
  passed: Passed;
}

export function groupOf({ graph, words }: Row): string {
  return `${graph}/${words[0]?.length ?? 0}/${words.length}`;
}

/** Equal for rows that their graph answers alike. */
export function rowKey({ graph, encoding, words }: Row): string {
  const { ids, typeIds, maskPositions } = encoding;
  return `${graph}|${ids.join()}|${typeIds.indexOf(1)}|${maskPositions.join()}|${words.join(';')}`;
}

/** `pending` is in order of arrival; undefined where it is empty. */
export function nextTurn<P extends Pending>(pending: readonly P[], passed: Passed, nowMs: number): Turn<P> | undefined {
  const oldest = (priority: Priority) => pending.find((entry) => entry.priority === priority);
  const first = { interactive: oldest('interactive'), bulk: oldest('bulk'), background: oldest('background') };
  const hasShare = (priority: Yielding) =>
    first[priority] !== undefined && nowMs - first[priority].enqueuedAtMs >= SHARES[priority].afterMs;
  const owed = YIELDING.find((priority) => hasShare(priority) && passed[priority] >= SHARES[priority].passes);
  const lead = (owed && first[owed]) ?? first.interactive ?? first.bulk ?? first.background;
  if (!lead) return undefined;
  const after = (priority: Yielding) => (hasShare(priority) && lead.priority !== priority ? passed[priority] + 1 : 0);
  return { lead, passed: { bulk: after('bulk'), background: after('background') } };
}

/**
 * The rows of the batch that `lead` is in, in order of length. `pending` is in order of arrival and holds it; `shapeOf`
 * is what batches will be padded to.
 */
export function takeBatch<P extends Pending>(
  pending: readonly P[],
  lead: P,
  maxBatchTokens: number,
  shapeOf: ShapeOf = exactShape,
): P[] {
  const { shorter, longer, others } = neighbours(pending, lead);
  const batch = [lead];
  let longest = lengthOf(lead);
  const fits = (rows: number, length: number) => rows <= MAX_ROWS && tokensIn(shapeOf(rows, length)) <= maxBatchTokens;
  const isWorth = (padding: number) => padding <= maxBatchTokens * PADDING_SHARE;

  // Grow around the lead: shorter neighbours cost least, longer ones raise what every row is padded to.
  let [nextShorter, nextLonger] = [0, 0];
  while (true) {
    const down = shorter[nextShorter];
    const up = longer[nextLonger];
    const rows = batch.length + 1;
    const takesUp = up !== undefined && fits(rows, lengthOf(up)) && isWorth(batch.length * (lengthOf(up) - longest));
    const takesDown = down !== undefined && fits(rows, longest) && isWorth(longest - lengthOf(down));
    const prefersUp = up && (!down || lengthOf(up) - longest < longest - lengthOf(down));
    if (takesUp && (prefersUp || !takesDown)) {
      batch.push(up);
      longest = lengthOf(up);
      nextLonger++;
    } else if (takesDown) {
      batch.push(down);
      nextShorter++;
    } else break;
  }
  // Work of the other classes rides along where the batch has room and grows no longer.
  const riders = others.filter((entry) => lengthOf(entry) <= longest && isWorth(longest - lengthOf(entry)));
  riders.sort((a, b) => URGENCY[a.priority] - URGENCY[b.priority] || lengthOf(b) - lengthOf(a));
  for (const entry of riders) if (fits(batch.length + 1, longest)) batch.push(entry);
  return batch.sort((a, b) => lengthOf(a) - lengthOf(b));
}

/** Those that may share its batch: of its class by nearness in length, of equals the oldest first; and of the others. */
function neighbours<P extends Pending>(pending: readonly P[], lead: P) {
  const shorter: P[] = [];
  const longer: P[] = [];
  const others: P[] = [];
  for (const entry of pending) {
    if (entry === lead || entry.runner !== lead.runner || entry.group !== lead.group) continue;
    if (entry.priority !== lead.priority) others.push(entry);
    else (lengthOf(entry) < lengthOf(lead) ? shorter : longer).push(entry);
  }
  shorter.sort((a, b) => lengthOf(b) - lengthOf(a));
  longer.sort((a, b) => lengthOf(a) - lengthOf(b));
  return { shorter, longer, others };
}

function lengthOf({ row }: Pending): number {
  return row.encoding.ids.length;
}

/** What the shape has more rows than there are repeats the last one: a row of padding alone has no softmax. */
export function packBatch(given: Row[], padId: number, shapeOf: ShapeOf = exactShape): HostBatch {
  const shape = shapeOf(given.length, Math.max(...given.map((row) => row.encoding.ids.length)));
  const { length } = shape;
  const rows = Array.from({ length: shape.rows }, (_, r) => given[Math.min(r, given.length - 1)]!);
  const words = rows[0]?.words.length ?? 0;
  const masks = rows[0]?.words[0]?.length ?? 0;
  const batch: HostBatch = {
    graph: rows[0]?.graph ?? '',
    rows: rows.length,
    length,
    masks,
    words,
    inputIds: new BigInt64Array(rows.length * length).fill(BigInt(padId)),
    attentionMask: new BigInt64Array(rows.length * length),
    tokenTypeIds: new BigInt64Array(rows.length * length),
    maskPositions: new BigInt64Array(rows.length * masks),
    labelTokens: new BigInt64Array(rows.length * words * masks),
  };
  rows.forEach(({ encoding, words: tokens }, r) => {
    encoding.ids.forEach((token, i) => {
      batch.inputIds[r * length + i] = BigInt(token);
      batch.attentionMask[r * length + i] = 1n;
      batch.tokenTypeIds[r * length + i] = BigInt(encoding.typeIds[i] ?? 0);
    });
    encoding.maskPositions.forEach((position, i) => (batch.maskPositions[r * masks + i] = BigInt(position)));
    tokens.flat().forEach((token, i) => (batch.labelTokens[r * words * masks + i] = BigInt(token)));
  });
  return batch;
}
