/**
 * The membership in the consumer group: which topics are read, and the consumer that reads them. It goes on by itself:
 * a consumer that ended, topics that were created later and tasks that were applied later are noticed within seconds.
 */
import { Logger } from '@nestjs/common';
import type { Batch, Consumer, Kafka } from 'kafkajs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PartHealth } from '../../common/health.js';
import { deadLetterTopic, EVENTS_TOPIC } from '../../task/topics.js';
import type { KafkaSettings } from './client.js';
import { LogCut, neverSetBackFromEnd, type TopicIds } from './internals.js';
import type { TaskDirectory } from './task-directory.js';
import { ensureTopics } from './topics.js';

export interface ConsumerHandlers {
  /** All partitions that are this worker's from now on, each to be read from its committed offset. */
  assigned(partitions: { topic: string; partition: number }[]): void;
  fetched(batch: Batch): void;
  /** A fetch was taken in, records, markers or both: the next begins at `position`. */
  passed(place: { topic: string; partition: number }, position: bigint, high: bigint): void;
  /** A log ends before what was read of it; it is not read again. */
  cut(error: LogCut): void;
}

const LOOK_MS = 2_000;
/** Topics that are missing are asked for again so often. */
const MISSING_MS = 10_000;
/** How long a fetch waits for records, and how soon the end of a pause is noticed. */
const MAX_WAIT_MS = 100;
const PARTITIONS_AT_ONCE = 8;
/** Texts compress tenfold: of a partition, what a fetch brings is to be about what may wait. */
const FETCH_BYTES = 256 * 1024;

export class InputConsumer {
  readonly #log = new Logger('Kafka');
  readonly #stop = new AbortController();
  #consumer: Consumer | null = null;
  /** Topics and their ids; null: nothing is read now. */
  #subscribed: string | null = null;
  #wanted = '';
  #present = new Set<string>();
  #askAgainAt = 0;
  #complaint = '';
  #loop: Promise<void> = Promise.resolve();

  constructor(
    private readonly kafka: Kafka,
    private readonly settings: KafkaSettings,
    private readonly directory: TaskDirectory,
    private readonly topicIds: TopicIds,
    private readonly handlers: ConsumerHandlers,
  ) {}

  start(): void {
    neverSetBackFromEnd(this.settings.kafkaGroupId);
    this.#loop = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
    await this.#consumer?.disconnect();
  }

  /** Throws where there is none now. */
  get consumer(): Consumer {
    if (!this.#consumer) throw new Error('the consumer is not connected now');
    return this.#consumer;
  }

  /** Whether it reads, where there is something to read. */
  state(): PartHealth {
    if (this.#complaint !== '') return { ok: false, reason: this.#complaint };
    if (this.#subscribed === null && this.#wanted !== '') return { ok: false, reason: 'no topic is read yet' };
    return { ok: true };
  }

  pause(topic: string, partition: number): void {
    this.#consumer?.pause([{ topic, partitions: [partition] }]);
  }

  resume(topic: string, partition: number): void {
    this.#consumer?.resume([{ topic, partitions: [partition] }]);
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.directory.refresh();
        const present = await this.#topics();
        // A topic that was made again under its name is read from its own beginning.
        const ids = present.length === 0 ? new Map<string, string>() : await this.topicIds.of(present);
        // One that was deleted would keep the consumer from all the others.
        const topics = present.filter((topic) => ids.has(topic));
        if (topics.length < present.length) this.#askAgainAt = 0;
        const subscription = topics.map((topic) => `${topic}=${ids.get(topic)}`).join();
        if (topics.length > 0 && subscription !== this.#subscribed) await this.#subscribe(topics, ids, subscription);
        if (topics.length === 0 || this.#subscribed !== null) this.#complaint = '';
      } catch (error) {
        this.#complain(`the stream waits for Kafka or the database: ${(error as Error).message}`);
      }
      await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  /** The input topics that are there. Asks the brokers where tasks changed, or where topics were missing. */
  async #topics(): Promise<string[]> {
    const inputs = this.directory.topics();
    const wanted = [...inputs].flatMap(([input, outputs]) => [input, ...outputs, deadLetterTopic(input)]);
    const topics = [...new Set([...wanted, EVENTS_TOPIC])].sort();
    if (topics.join() !== this.#wanted || performance.now() > this.#askAgainAt) {
      const { present, missing, reason } = await ensureTopics(this.kafka, this.topicIds, topics);
      this.#present = present;
      this.#wanted = topics.join();
      this.#askAgainAt = missing.length > 0 ? performance.now() + MISSING_MS : Infinity;
      if (missing.length > 0) {
        const names = missing.join(', ');
        this.#log.warn(`topics ${names} are missing and cannot be created here (${reason}): have them created`);
      }
    }
    return [...inputs.keys()].filter((topic) => this.#present.has(topic)).sort();
  }

  /** A consumer cannot be subscribed to more while it runs: it is replaced. */
  async #subscribe(topics: string[], ids: Map<string, string>, subscription: string): Promise<void> {
    this.#subscribed = null;
    await this.#consumer?.disconnect();
    this.#consumer = null;
    this.handlers.assigned([]);
    const consumer = this.kafka.consumer({
      groupId: this.settings.kafkaGroupId,
      sessionTimeout: this.settings.kafkaSessionTimeoutMs,
      heartbeatInterval: Math.min(3_000, Math.floor(this.settings.kafkaSessionTimeoutMs / 6)),
      maxWaitTimeInMs: MAX_WAIT_MS,
      maxBytesPerPartition: FETCH_BYTES,
      allowAutoTopicCreation: false,
    });
    let ended = false;
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      const { memberAssignment } = payload;
      this.handlers.assigned(
        Object.entries(memberAssignment).flatMap(([topic, partitions]) =>
          partitions.map((partition) => ({ topic, partition })),
        ),
      );
      for (const [topic, partitions] of Object.entries(memberAssignment)) consumer.resume([{ topic, partitions }]);
    });
    consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) => {
      this.handlers.passed(payload, BigInt(payload.lastOffset) + 1n, BigInt(payload.highWatermark));
    });
    const crashed = async ({ error, restart }: { error: Error; restart: boolean }): Promise<void> => {
      const { cause } = error;
      if (cause instanceof LogCut && (await this.#isStill(cause.topic, ids))) return this.handlers.cut(cause);
      this.#complain(`the consumer ended and is started again: ${error.message}`);
      if (restart) return;
      ended = true;
      this.#subscribed = null;
    };
    consumer.on(consumer.events.CRASH, ({ payload }) => void crashed(payload));
    await consumer.connect();
    this.#consumer = consumer;
    await consumer.subscribe({ topics, fromBeginning: true });
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: PARTITIONS_AT_ONCE,
      // It takes the batch in and is done, so that heartbeats and polls go on while the batch waits for its model.
      eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
        if (!isRunning() || isStale()) return;
        this.handlers.fetched(batch);
        resolveOffset(batch.messages.at(-1)!.offset);
        await heartbeat();
      },
    });
    // It may end while it joins, and is told to run all the same.
    if (ended) return;
    this.#subscribed = subscription;
    this.#log.log(`reading ${topics.join(', ')} as ${this.settings.kafkaGroupId}, ${this.settings.kafkaDelivery}`);
  }

  /** Whether the topic has not been made again since, as far as one can tell now. */
  async #isStill(topic: string, ids: Map<string, string>): Promise<boolean> {
    const now = await this.topicIds.of([topic]).catch(() => undefined);
    return now !== undefined && now.get(topic) === ids.get(topic);
  }

  /** Once a trouble, not once a try. */
  #complain(message: string): void {
    if (message !== this.#complaint) this.#log.warn(message);
    this.#complaint = message;
  }
}
