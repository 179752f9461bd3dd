/**
 * How what a claim became is kept: the partition taken over, PostgreSQL, then outputs, dead letters and offset together.
 * Invariants: nothing is written below the offset that was committed when the partition was taken over; a writer that
 * failed is not used again.
 */
import { Logger } from '@nestjs/common';
import type { Admin, Consumer, Kafka } from 'kafkajs';
import { badInput, FewloopError } from '../../common/errors.js';
import type { StreamHistory } from '../../learning/stream-history.js';
import { deadLetterTopic } from '../../task/topics.js';
import { committedOffsets, type KafkaSettings } from './client.js';
import type { Claim, InputPartition } from './input-partition.js';
import type { TopicIds } from './internals.js';
import { withDead, type Results } from './results.js';
import { AtLeastOnceWriter, REQUEST_BYTES, RequestTooLarge, TransactionalWriter, type Writer } from './writer.js';

/** A worker that was fenced hears of it from the group by then; to go on before would fence the rightful owner. */
const REST_AFTER_FENCE_MS = 5_000;
const FENCED = /FENCED|INVALID_PRODUCER_EPOCH/u;

export class Committer {
  readonly #log = new Logger('KafkaStream');
  readonly #writers = new Map<string, Writer>();
  #admin: Promise<Admin> | undefined;
  #clusterId: string | undefined;
  /** What every topic took so far. */
  #requestBytes = REQUEST_BYTES;
  /** Nothing is read any more once Kafka's history contradicts what is known of it. */
  #contradiction: FewloopError | null = null;

  constructor(
    private readonly kafka: Kafka,
    private readonly config: KafkaSettings,
    private readonly history: Pick<StreamHistory, 'keep'>,
    private readonly topicIds: TopicIds,
    /** Throws where there is none now. */
    private readonly consumer: () => Pick<Consumer, 'seek' | 'commitOffsets'>,
  ) {}

  get contradiction(): FewloopError | null {
    return this.#contradiction;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#writers.keys()].map((key) => this.closeWriter(key)));
    await disconnect(this.#admin);
  }

  /** Makes the partition this worker's, as far as the claim goes: on return it is checked, or the claim cancelled. */
  takeOver(partition: InputPartition, claim: Claim): Promise<void> {
    return this.#guarded(partition, claim, () => this.#takeOver(partition));
  }

  /**
   * One at a time in a partition, in order. What a topic does not take is tried in smaller requests, by a new writer.
   * What was kept; null where another worker has the partition.
   */
  async commit(partition: InputPartition, claim: Claim, results: Results): Promise<Results | null> {
    for (let wanted = results; ;) {
      try {
        return (await this.#commitOnce(partition, claim, wanted)) ? wanted : null;
      } catch (error) {
        if (!(error instanceof RequestTooLarge)) throw error;
        wanted = this.#inPlaceOf(wanted, error, partition);
      }
    }
  }

  /** What is to be committed in place of what a topic did not take. */
  #inPlaceOf(results: Results, error: RequestTooLarge, partition: InputPartition): Results {
    const [message, ...others] = error.messages;
    if (others.length > 0) {
      this.#requestBytes = Math.ceil(error.bytes / 2);
      return results;
    }
    const { topic } = message!;
    const limit = `${error.bytes} bytes are more than topic ${topic} takes: raise its max.message.bytes`;
    // A letter is the last place for a record.
    if (topic === deadLetterTopic(partition.topic)) throw new Error(limit, { cause: error });
    return withDead(results, results.outgoing.indexOf(message!), badInput('metadata', `the prediction's ${limit}`));
  }

  async #commitOnce(partition: InputPartition, claim: Claim, results: Results): Promise<boolean> {
    let written = false;
    await this.#guarded(partition, claim, async (writer) => {
      await this.#takeOver(partition);
      const [first] = results.entries;
      if (claim.cancelled || !first) return;
      if (BigInt(first.offset) < partition.floor) throw new Error(`another worker wrote what this one scored`);
      await this.#write(partition, writer, results);
      written = true;
    });
    return written;
  }

  /** Whether a commit that failed took place, only the broker knows: it is asked anew. */
  async #guarded(partition: InputPartition, claim: Claim, work: (writer: Writer) => Promise<unknown>): Promise<void> {
    const key = `${partition.topic}:${partition.partition}`;
    const writer = this.#writers.get(key) ?? this.#openWriter(key, partition);
    try {
      await writer.begin();
      await work(writer);
    } catch (error) {
      partition.checked = false;
      await this.closeWriter(key);
      if (error instanceof FewloopError && error.code === 'CONFLICT') this.contradicted(error);
      if (!FENCED.test((error as { type?: string }).type ?? '')) throw error;
      partition.fail(claim);
      partition.restsUntilMs = performance.now() + REST_AFTER_FENCE_MS;
      this.#log.log(`another worker has taken over ${key}`);
    }
  }

  async #write(partition: InputPartition, writer: Writer, { entries, outgoing }: Results): Promise<void> {
    const { topic, partition: number } = partition;
    const clusterId = (this.#clusterId ??= (await this.ask((admin) => admin.describeCluster())).clusterId);
    await this.history.keep({ clusterId, topicId: partition.topicId!, topic, partition: number }, entries);
    const offset = (BigInt(entries.at(-1)!.offset) + 1n).toString();
    await writer.write(outgoing, { topic, partition: number, offset }, this.#requestBytes);
  }

  /**
   * After the fence: the offset that counts is the one that is committed now. What another worker has committed since
   * this one fetched is not written again; where fetching began too late, or in a topic that is no more, it begins again.
   * Does nothing where all that is known already.
   */
  async #takeOver(partition: InputPartition): Promise<void> {
    const { topic, partition: number, topicId } = partition;
    const id = (await this.topicIds.of([topic])).get(topic);
    if (id === undefined) throw new Error(`topic ${topic} is not there`);
    const replaced = topicId !== undefined && topicId !== id;
    if (partition.checked && !replaced) return;
    const { kafkaGroupId } = this.config;
    const committed = (await this.ask((admin) => committedOffsets(admin, kafkaGroupId, topic))).get(number) ?? 0n;
    const ends = await this.ask((admin) => admin.fetchTopicOffsets(topic));
    const first = BigInt(ends.find((one) => one.partition === number)?.low ?? 0);
    const from = committed > first ? committed : first;
    partition.topicId = id;
    if (replaced || (partition.start ?? 0n) > from) {
      this.consumer().seek({ topic, partition: number, offset: from.toString() });
      partition.restart();
    } else {
      partition.floor = from;
      partition.checked = true;
    }
  }

  #openWriter(key: string, { topic, partition }: InputPartition): Writer {
    const writer =
      this.config.kafkaDelivery === 'exactly-once'
        ? new TransactionalWriter(this.kafka, this.config, topic, partition)
        : new AtLeastOnceWriter(this.kafka, this.config, this.consumer);
    this.#writers.set(key, writer);
    return writer;
  }

  /** Of a partition, by `topic:partition`. */
  async closeWriter(key: string): Promise<void> {
    const writer = this.#writers.get(key);
    this.#writers.delete(key);
    await writer?.close().catch((error: unknown) => this.#log.debug(`closing a producer: ${String(error)}`));
  }

  /** No second try mends it. */
  contradicted(error: FewloopError): void {
    if (!this.#contradiction) this.#log.error(`the stream stops: ${error.message}`);
    this.#contradiction = error;
  }

  /**
   * By a connection that it keeps until a question fails: kafkajs asks for every topic that a connection was ever asked
   * about, and answers nothing once one of them is deleted.
   */
  async ask<T>(question: (admin: Admin) => Promise<T>): Promise<T> {
    const connected = (this.#admin ??= connectAdmin(this.kafka));
    try {
      return await question(await connected);
    } catch (error) {
      if (this.#admin === connected) this.#admin = undefined;
      await disconnect(connected).catch(() => undefined);
      throw error;
    }
  }
}

async function connectAdmin(kafka: Kafka): Promise<Admin> {
  const admin = kafka.admin();
  await admin.connect();
  return admin;
}

async function disconnect(admin: Promise<Admin> | undefined): Promise<void> {
  await (await admin?.catch(() => undefined))?.disconnect();
}
