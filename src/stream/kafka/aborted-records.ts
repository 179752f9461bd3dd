/** Which records of a fetch belong to transactions that were aborted: a reader of what is committed leaves them out. */

/** As kafkajs decodes it. */
export interface FetchedRecord {
  offset: string;
  key: Buffer | null;
  isControlRecord: boolean;
  batchContext: { producerId: string; inTransaction: boolean };
}

/** As the broker lists them with a fetch: in the order in which they ended, not in which they began. */
export interface AbortedTransaction {
  producerId: string;
  firstOffset: string;
}

/**
 * The records of one partition's fetch that were aborted, control records left out. One producer's transaction reaches
 * from its first offset to the producer's next abort marker; transactions of several producers overlap.
 */
export function abortedRecords<Entry extends FetchedRecord>(
  records: Entry[],
  transactions: AbortedTransaction[],
): Entry[] {
  const waiting = transactions
    .map(({ producerId, firstOffset }) => ({ producerId, first: BigInt(firstOffset) }))
    .sort((a, b) => (a.first < b.first ? 1 : -1));
  const open = new Set<string>();
  return records.filter((record) => {
    const { producerId, inTransaction } = record.batchContext;
    for (let next = waiting.at(-1); next && next.first <= BigInt(record.offset); next = waiting.at(-1)) {
      open.add(next.producerId);
      waiting.pop();
    }
    if (record.isControlRecord) {
      if (isAbortMarker(record)) open.delete(producerId);
      return false;
    }
    return inTransaction && open.has(producerId);
  });
}

/** A control record's key: its version and its type, 16 bits each; type 0 aborts. */
function isAbortMarker({ key }: FetchedRecord): boolean {
  return key !== null && key.length >= 4 && key.readInt16BE(2) === 0;
}
