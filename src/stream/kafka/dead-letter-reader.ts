/**
 * Dead letters that nobody has dealt with yet: those of the dead-letter topic beyond the offsets of a group of their own.
 * One reader at a time in a process; two processes that replay at once may both replay the same ones.
 */
import type { IHeaders, Kafka } from 'kafkajs';
import { deadLetterTopic } from '../../task/topics.js';
import { uncommittedRanges, withAdmin, type KafkaSettings } from './client.js';

export interface StoredLetter {
  partition: number;
  offset: string;
  key: Buffer | null;
  value: Buffer | null;
  headers: IHeaders;
  timestamp: string;
}

interface ReadLetters {
  letters: StoredLetter[];
  /** How many there are, at most: the markers of transactions count too. */
  total: number;
  /** Partition → the offset behind the last letter that was read. */
  next: Map<number, string>;
}

const READ_MS = 20_000;

export class DeadLetterReader {
  readonly #group: string;
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly kafka: Kafka,
    settings: KafkaSettings,
  ) {
    this.#group = `${settings.kafkaGroupId}.dlq`;
  }

  /** The first ones of each partition. */
  read(input: string, first: number): Promise<ReadLetters> {
    const next = this.#last.then(() => this.#read(deadLetterTopic(input), first));
    this.#last = next.catch(() => undefined);
    return next;
  }

  async commit(input: string, next: Map<number, string>): Promise<void> {
    if (next.size === 0) return;
    const partitions = [...next].map(([partition, offset]) => ({ partition, offset }));
    await withAdmin(this.kafka, (admin) =>
      admin.setOffsets({ groupId: this.#group, topic: deadLetterTopic(input), partitions }),
    );
  }

  async #read(topic: string, first: number): Promise<ReadLetters> {
    const remaining = await withAdmin(this.kafka, (admin) => uncommittedRanges(admin, this.#group, topic));
    const total = [...remaining.values()].reduce((sum, { from, to }) => sum + Number(to - from), 0);
    const read = new Map([...remaining.keys()].map((partition): [number, StoredLetter[]] => [partition, []]));
    if (remaining.size > 0) await this.#consume(topic, remaining, read, first);
    const letters = oldestOf([...read.values()], first);
    const next = new Map(letters.map(({ partition, offset }) => [partition, (BigInt(offset) + 1n).toString()]));
    return { letters, total, next };
  }

  async #consume(
    topic: string,
    remaining: Map<number, { from: bigint; to: bigint }>,
    read: Map<number, StoredLetter[]>,
    first: number,
  ): Promise<void> {
    const consumer = this.kafka.consumer({
      groupId: this.#group,
      maxWaitTimeInMs: 100,
      allowAutoTopicCreation: false,
    });
    const open = new Set(remaining.keys());
    try {
      await consumer.connect();
      await consumer.subscribe({ topics: [topic], fromBeginning: true });
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${topic} was not read to its end in time`)), READ_MS);
        const done = (partition: number) => {
          open.delete(partition);
          if (open.size > 0) return;
          clearTimeout(timer);
          resolve();
        };
        // Comes for batches that hold a transaction's marker alone, too.
        consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload: { partition, lastOffset } }) => {
          if (BigInt(lastOffset) + 1n >= (remaining.get(partition)?.to ?? 0n)) done(partition);
        });
        consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
        const eachMessage: Parameters<typeof consumer.run>[0] = {
          autoCommit: false,
          eachMessage: async ({ partition, message: { offset, key, value, headers = {}, timestamp } }) => {
            const letters = read.get(partition);
            if (!letters || letters.length >= first) return done(partition);
            // A reader that joins anew begins anew.
            if (BigInt(offset) <= BigInt(letters.at(-1)?.offset ?? -1)) return;
            letters.push({ partition, offset, key, value, headers, timestamp });
          },
        };
        consumer.run(eachMessage).catch(reject);
      });
    } finally {
      await consumer.disconnect();
    }
  }
}

/**
 * So many letters, of the next ones of all partitions always the oldest: an offset tells how far a partition is dealt
 * with, so what is taken of each is its beginning, though a younger letter may lie before an older one.
 */
export function oldestOf(partitions: StoredLetter[][], first: number): StoredLetter[] {
  const waiting = partitions.map((letters) => letters.values());
  const heads = waiting.map((letters) => letters.next().value);
  const taken: StoredLetter[] = [];
  while (taken.length < first) {
    const at = indexOfOldest(heads);
    if (at < 0) break;
    taken.push(heads[at]!);
    heads[at] = waiting[at]!.next().value;
  }
  return taken;
}

/** -1: there is none. */
function indexOfOldest(heads: (StoredLetter | undefined)[]): number {
  const times = heads.map((head) => (head ? Number(head.timestamp) : Infinity));
  return heads.some(Boolean) ? times.indexOf(Math.min(...times)) : -1;
}
