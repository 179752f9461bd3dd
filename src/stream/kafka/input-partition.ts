/**
 * An input partition as this worker owns it, from its assignment to its revocation. Pure state: what was fetched and
 * waits, and what was claimed and is being scored.
 *
 *   fetched ──claim──▶ claimed ──finish──▶ gone (its outputs and its offset are committed)
 *      ▲──────fail────────┘   and every later claim with it
 *
 * Invariants: claims are committed in the order of their offsets; a cancelled claim commits nothing; what a claim held
 * when it failed is fetched again in its old place; after `close` nothing new is committed.
 */
import type { PartitionView } from './lag.js';
import type { Incoming } from './record.js';

export class Claim {
  cancelled = false;
  /** Resolves when every earlier claim has come to its end. */
  readonly turn: Promise<void>;
  readonly settled: Promise<void>;
  settle!: () => void;

  constructor(
    readonly records: Incoming[],
    turn: Promise<void>,
  ) {
    this.turn = turn;
    this.settled = new Promise((resolve) => (this.settle = resolve));
  }
}

/** Of what was fetched before, for the density: what came last counts most. */
const SEEN_BEFORE = 0.9;

/** Records and bytes that one claim, and so one transaction, may have. */
export interface ClaimLimits {
  records: number;
  bytes: number;
}

export class InputPartition {
  /** Whether the committed offset was compared with what was fetched since the last take-over. */
  checked = false;
  /** Of the topic that was taken over: one made again under its name is another. */
  topicId: string | undefined;
  /** Offsets below were committed when it was taken over, by whomever: what is here of them is not written again. */
  floor = 0n;
  /** Nothing is claimed before, by the clock of `performance.now`. */
  restsUntilMs = 0;
  #queue: Incoming[] = [];
  #claims: Claim[] = [];
  #tail: Promise<void>;
  #start: bigint | undefined;
  #next: bigint | undefined;
  #bytes = 0;
  #position: bigint | undefined;
  #high = 0n;
  #seen = { records: 0, offsets: 0 };
  #closed = false;

  /** `before`: when whoever had the partition in this process is done with it. */
  constructor(
    readonly topic: string,
    readonly partition: number,
    before: Promise<void>,
  ) {
    this.#tail = before;
  }

  get claims(): number {
    return this.#claims.length;
  }

  get waiting(): number {
    return this.#queue.length;
  }

  /** Of what waits. */
  get bytes(): number {
    return this.#bytes;
  }

  /** For the lag. */
  get view(): PartitionView {
    const oldest = this.#claims[0]?.records[0] ?? this.#queue[0];
    return {
      topic: this.topic,
      partition: this.partition,
      unsettled: this.#claims.reduce((sum, { records }) => sum + records.length, this.#queue.length),
      oldestMs: oldest && Number(oldest.timestamp),
      position: this.#position,
      high: this.#high,
      density: this.#seen.offsets === 0 ? 1 : Math.min(1, this.#seen.records / this.#seen.offsets),
    };
  }

  /** The offset from which fetching began; nothing below it is or was here. */
  get start(): bigint | undefined {
    return this.#start;
  }

  /** Resolves when no claim of now is at work any more. */
  get idle(): Promise<void> {
    return this.#tail;
  }

  /** Takes what was fetched from `fetchedOffset` on. An earlier one than expected means that fetching began anew. */
  push(fetchedOffset: bigint, lastOffset: bigint, records: Incoming[]): void {
    if (this.#closed) return;
    if (this.#next === undefined || fetchedOffset < this.#next) this.restart(fetchedOffset);
    for (const record of records) {
      this.#queue.push(record);
      this.#bytes += sizeOf(record);
    }
    this.#next = lastOffset + 1n;
    this.#seen = {
      records: SEEN_BEFORE * this.#seen.records + records.length,
      offsets: SEEN_BEFORE * this.#seen.offsets,
    };
  }

  /** The consumer goes on from `position`, past records and markers alike; the partition ends at `high`. */
  passed(position: bigint, high: bigint): void {
    if (this.#position !== undefined && position > this.#position)
      this.#seen.offsets += Number(position - this.#position);
    this.#position = position;
    this.#high = high;
  }

  /** The oldest records, up to the first that is `blocked`; null where there is none. */
  claim(limits: ClaimLimits, blocked: (record: Incoming) => boolean): Claim | null {
    let count = 0;
    let bytes = 0;
    for (const record of this.#queue) {
      const size = sizeOf(record);
      if (count === limits.records || (count > 0 && bytes + size > limits.bytes) || blocked(record)) break;
      bytes += size;
      count += 1;
    }
    if (count === 0) return null;
    const claim = new Claim(this.#queue.splice(0, count), this.#tail);
    this.#bytes -= bytes;
    this.#claims.push(claim);
    this.#tail = claim.settled;
    return claim;
  }

  finish(claim: Claim): void {
    this.#claims = this.#claims.filter((one) => one !== claim);
  }

  /** Puts the claim's records back, and those of every later claim, which is cancelled. */
  fail(claim: Claim): void {
    const at = this.#claims.indexOf(claim);
    if (at < 0) return;
    const failed = this.#claims.splice(at);
    for (const one of failed) one.cancelled = true;
    const records = failed.flatMap((one) => one.records);
    this.#queue.unshift(...records);
    for (const record of records) this.#bytes += sizeOf(record);
  }

  /** Forgets all that is here: it will be fetched again. */
  restart(start?: bigint): void {
    for (const claim of this.#claims) claim.cancelled = true;
    this.#claims = [];
    this.#queue = [];
    this.#bytes = 0;
    this.#start = start;
    this.#next = start;
    this.#position = start;
    this.checked = false;
  }

  close(): void {
    this.restart();
    this.#closed = true;
  }
}

function sizeOf({ key, value }: Incoming): number {
  return (key?.length ?? 0) + (value?.length ?? 0);
}
