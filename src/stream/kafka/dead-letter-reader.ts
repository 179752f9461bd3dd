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
    const letters: StoredLetter[] = [];
    const total = [...remaining.values()].reduce((sum, { from, to }) => sum + Number(to - from), 0);
    if (remaining.size > 0) await this.#consume(topic, remaining, letters, first);
    letters.sort((a, b) => Number(a.timestamp) - Number(b.timestamp));
    // Those beyond the wanted number stay where they are, in each partition behind the ones that are taken.
    const taken = letters.slice(0, first);
    const next = new Map<number, string>();
    for (const { partition, offset } of taken) {
      const behind = BigInt(offset) + 1n;
      if (behind > BigInt(next.get(partition) ?? 0)) next.set(partition, behind.toString());
    }
    return { letters: taken, total, next };
  }

  async #consume(
    topic: string,
    remaining: Map<number, { from: bigint; to: bigint }>,
    letters: StoredLetter[],
    first: number,
  ): Promise<void> {
    const consumer = this.kafka.consumer({
      groupId: this.#group,
      maxWaitTimeInMs: 100,
      allowAutoTopicCreation: false,
    });
    const open = new Set(remaining.keys());
    const counts = new Map<number, number>();
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
            const count = counts.get(partition) ?? 0;
            if (count >= first) return done(partition);
            counts.set(partition, count + 1);
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
