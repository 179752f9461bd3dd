/**
 * Step 3: rows become batches. Pure: `takeBatch` chooses which pending rows go next, `packBatch` lays them out.
 *
 * A batch holds rows of one group (runner, graph, masks, words), of similar length, and at most `maxBatchTokens` padded
 * tokens (rows times the longest) and 512 rows; a row longer than that goes alone. Of similar length: a row joins where
 * what it adds in padding is less than a batch of its own would cost. It always holds the most urgent row:
 * interactive before the others, then the oldest. Bulk counts as interactive once it has waited two seconds, background
 * (scores that nobody waits for) once it has waited ten.
 */
import { exactShape, MAX_ROWS, tokensIn, type ShapeOf } from './shapes.js';
import type { Encoding, HostBatch, Priority } from './types.js';

/**
 * Of the budget: padding that a row may add. The budget is where a batch's own cost has become a small part of it
 * (registry/batch-budget.ts); less than that, because a row that is left may join others of its length.
 */
const PADDING_SHARE = 1 / 32;
const AGES_AFTER_MS: Record<Priority, number> = { interactive: 0, bulk: 2000, background: 10_000 };

/** One rendering to score: `words` are the label words' token ids, [words][masks]; none where it has no masks. */
export interface Row {
  graph: string;
  encoding: Encoding;
  words: number[][];
}

export interface Pending {
  row: Row;
  /** Rows with the same group may share a batch. */
  group: string;
  priority: Priority;
  /** Monotonic milliseconds. */
  enqueuedAtMs: number;
}

export function groupOf({ graph, words }: Row): string {
  return `${graph}/${words[0]?.length ?? 0}/${words.length}`;
}

/** Equal for rows that their graph answers alike. */
export function rowKey({ graph, encoding, words }: Row): string {
  const { ids, typeIds, maskPositions } = encoding;
  return `${graph}|${ids.join()}|${typeIds.indexOf(1)}|${maskPositions.join()}|${words.join(';')}`;
}

/**
 * The rows of the next batch, in order of length; empty where nothing is pending. `pending` is in order of arrival;
 * `shapeOf` is what batches will be padded to.
 */
export function takeBatch<P extends Pending>(
  pending: readonly P[],
  maxBatchTokens: number,
  nowMs: number,
  shapeOf: ShapeOf = exactShape,
): P[] {
  const yields = (entry: P) => nowMs - entry.enqueuedAtMs < AGES_AFTER_MS[entry.priority];
  const urgent =
    pending.find((entry) => !yields(entry)) ?? pending.find((e) => e.priority !== 'background') ?? pending[0];
  if (urgent === undefined) return [];
  const length = (entry: P) => entry.row.encoding.ids.length;
  const peers = pending.filter((entry) => entry.group === urgent.group).sort((a, b) => length(a) - length(b));
  const first = peers.filter((entry) => yields(entry) === yields(urgent));

  // Grow around the urgent row: shorter neighbours cost least, longer ones raise what every row is padded to.
  let [from, to] = [first.indexOf(urgent), first.indexOf(urgent) + 1];
  const fits = (rows: number, longest: number) =>
    rows <= MAX_ROWS && tokensIn(shapeOf(rows, longest)) <= maxBatchTokens;
  const isWorth = (padding: number) => padding <= maxBatchTokens * PADDING_SHARE;
  while (true) {
    const longest = length(first[to - 1]!);
    const longer = first[to];
    const shorter = first[from - 1];
    const preferLonger =
      longer !== undefined && (shorter === undefined || length(longer) - longest < longest - length(shorter));
    const rows = to - from + 1;
    const takesLonger =
      longer !== undefined && fits(rows, length(longer)) && isWorth((rows - 1) * (length(longer) - longest));
    const takesShorter = shorter !== undefined && fits(rows, longest) && isWorth(longest - length(shorter));
    if (takesLonger && (preferLonger || !takesShorter)) to++;
    else if (takesShorter) from--;
    else break;
  }
  const batch = first.slice(from, to);
  const longest = length(batch[batch.length - 1]!);
  // Work of the other class rides along where the batch has room and grows no longer.
  for (const entry of peers.filter((p) => yields(p) !== yields(urgent)).reverse()) {
    if (length(entry) <= longest && isWorth(longest - length(entry)) && fits(batch.length + 1, longest))
      batch.push(entry);
  }
  return batch.sort((a, b) => length(a) - length(b));
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
