/**
 * The stream in Kafka: consume, score, produce. Inside Kafka exactly once: a batch's outputs, its dead letters and its
 * offset are one transaction; the history and the candidates are in PostgreSQL before that, idempotently.
 *
 *   fetched ahead, paused at a high-water mark ─▶ claim ─▶ take over, where new ─▶ score, task by task
 *     ─▶ the claim's turn ─▶ PostgreSQL ─▶ outputs, dead letters, offset: commit
 *
 * Invariants: a partition's claims are committed in order; a worker that lost a partition, and does not know it yet, can
 * commit nothing once another has taken it over (one transactional id a partition fences it), and whoever takes one over
 * begins at the committed offset, read after the fence, with the desired model version. Imports learning, registry,
 * inference, task and kafkajs.
 */
import { Inject, Injectable, Logger } from '@nestjs/common';
import type { Admin, Batch, Kafka } from 'kafkajs';
import { FewloopError } from '../../common/errors.js';
import type { PartHealth } from '../../common/health.js';
import { METRICS, secondsSince, type Metrics } from '../../common/metrics/metrics.js';
import { Config } from '../../config/config.js';
import { itemOf } from '../../learning/data-set.js';
import { StreamHistory } from '../../learning/stream-history.js';
import { ConvergenceService } from '../../registry/convergence.js';
import { countKept } from '../kept-metrics.js';
import type { RecordOutcome, StreamBatch, StreamPort } from '../records.js';
import { Waiters } from '../waiters.js';
import { committedOffsets, connectKafka, uncommittedRanges } from './client.js';
import { InputConsumer } from './input-consumer.js';
import { InputPartition, type Claim } from './input-partition.js';
import { TopicIds } from './internals.js';
import { StreamLag } from './lag.js';
import { isReadable, placeOf, readRecord, type Incoming, type Readable, type Refused } from './record.js';
import { RecordTraces } from './record-traces.js';
import { keptOf, resultsOf, type Results } from './results.js';
import { TaskDirectory } from './task-directory.js';
import { AtLeastOnceWriter, TransactionalWriter, type Writer } from './writer.js';

type Score = (batch: StreamBatch) => Promise<RecordOutcome[]>;

/** A transaction costs 30 to 85 ms whatever is in it. */
const CLAIM_LIMITS = { records: 512, bytes: 1_000_000 };
/** While one claim of a partition is committed, the next is scored. */
const CLAIMS_A_PARTITION = 2;
const HIGH_WATER = { records: 4 * CLAIM_LIMITS.records, bytes: 8_000_000 };
const LOW_WATER_RECORDS = CLAIM_LIMITS.records;
/** A worker that was fenced hears of it from the group by then; to go on before would fence the rightful owner. */
const REST_AFTER_FENCE_MS = 5_000;
const FENCED = /FENCED|INVALID_PRODUCER_EPOCH/u;

@Injectable()
export class KafkaStream implements StreamPort {
  readonly #log = new Logger(KafkaStream.name);
  readonly #kafka: Kafka;
  readonly #consumer: InputConsumer;
  readonly #directory: TaskDirectory;
  readonly #waiters = new Waiters();
  /** By `topic:partition`, the one that waits longest first. */
  #partitions = new Map<string, InputPartition>();
  readonly #writers = new Map<string, Writer>();
  readonly #paused = new Set<string>();
  readonly #topicIds: TopicIds;
  readonly #lag = new StreamLag(async (topic) =>
    uncommittedRanges(await this.#adminClient(), this.config.kafkaGroupId, topic),
  );
  #admin: Promise<Admin> | undefined;
  #clusterId: string | undefined;
  /** Nothing is read any more once Kafka's history contradicts what is known of it. */
  #contradiction: FewloopError | null = null;

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TaskDirectory) directory: TaskDirectory,
    @Inject(StreamHistory) private readonly history: Pick<StreamHistory, 'keep'>,
    @Inject(ConvergenceService) private readonly convergence: Pick<ConvergenceService, 'converge'>,
    @Inject(METRICS) private readonly metrics: Metrics,
  ) {
    this.#kafka = connectKafka(config);
    this.#topicIds = new TopicIds(this.#kafka);
    this.#directory = directory;
    this.#consumer = new InputConsumer(this.#kafka, config, directory, this.#topicIds, {
      assigned: (partitions) => this.#assigned(partitions),
      fetched: (batch) => this.#fetched(batch),
      passed: ({ topic, partition }, position, high) =>
        this.#partitions.get(`${topic}:${partition}`)?.passed(position, high),
    });
  }

  async open(): Promise<void> {
    this.#consumer.start();
    this.metrics.onScrape('stream', (set) => {
      const views = [...this.#partitions.values()].map(({ view }) => view);
      return this.#lag.gauges(set, views, ({ topic, partition }) => !this.#paused.has(`${topic}:${partition}`));
    });
  }

  state(): PartHealth {
    return this.#contradiction ? { ok: false, reason: this.#contradiction.message } : this.#consumer.state();
  }

  async process(exceptTasks: string[], score: Score): Promise<boolean> {
    if (this.#contradiction) throw this.#contradiction;
    const claimed = this.#claim(new Set(exceptTasks));
    if (!claimed) return false;
    const { partition, claim } = claimed;
    const startedAtMs = performance.now();
    try {
      const records = await this.#owned(partition, claim);
      const scoredFromMs = performance.now();
      const results = await this.#results(await this.#read(records), score);
      this.metrics.observe('fewloop_stream_inference_seconds', {}, secondsSince(scoredFromMs));
      await claim.turn;
      if (!claim.cancelled) await this.#commit(partition, claim, results, startedAtMs);
      partition.finish(claim);
      return true;
    } catch (error) {
      partition.fail(claim);
      throw error;
    } finally {
      claim.settle();
      this.#resume(partition);
      this.#waiters.wake();
    }
  }

  wait(timeoutMs: number): Promise<void> {
    return this.#waiters.wait(timeoutMs);
  }

  async close(): Promise<void> {
    await this.#consumer.stop();
    this.#assigned([]);
    await Promise.all([...this.#writers.keys()].map((key) => this.#closeWriter(key)));
    await (await this.#admin?.catch(() => undefined))?.disconnect();
    await this.#topicIds.close();
    this.#waiters.wake();
  }

  /** A partition that stays is read from its committed offset again too: it begins as a new one, after the old one's end. */
  #assigned(partitions: { topic: string; partition: number }[]): void {
    const before = this.#partitions;
    this.#partitions = new Map();
    this.#paused.clear();
    for (const { topic, partition } of partitions) {
      const key = `${topic}:${partition}`;
      const idle = before.get(key)?.idle ?? Promise.resolve();
      this.#partitions.set(key, new InputPartition(topic, partition, idle));
    }
    for (const [key, old] of before) {
      old.close();
      void this.#letGo(key, old.idle);
    }
  }

  /** Of a partition that went to another worker. */
  async #letGo(key: string, idle: Promise<void>): Promise<void> {
    await idle;
    if (!this.#partitions.has(key)) await this.#closeWriter(key);
  }

  #fetched({ topic, partition, messages, ...batch }: Batch): void {
    const key = `${topic}:${partition}`;
    const state = this.#partitions.get(key);
    if (!state || this.#contradiction) return;
    const records = messages.map(({ offset, timestamp, key: recordKey, value, headers }): Incoming => {
      return { topic, partition, offset, timestamp, key: recordKey, value, headers: headers ?? {} };
    });
    const { fetchedOffset } = batch as unknown as { fetchedOffset: string };
    state.push(BigInt(fetchedOffset), BigInt(records.at(-1)!.offset), records);
    if (state.waiting > HIGH_WATER.records || state.bytes > HIGH_WATER.bytes) {
      this.#paused.add(key);
      this.#consumer.pause(topic, partition);
    }
    this.#waiters.wake();
  }

  #resume(state: InputPartition): void {
    const key = `${state.topic}:${state.partition}`;
    if (this.#partitions.get(key) !== state || !this.#paused.has(key)) return;
    if (state.waiting > LOW_WATER_RECORDS || state.bytes > HIGH_WATER.bytes / 2) return;
    this.#paused.delete(key);
    this.#consumer.resume(state.topic, state.partition);
  }

  #claim(except: Set<string>): { partition: InputPartition; claim: Claim } | null {
    const blocked = (record: Incoming): boolean => {
      if (except.size === 0) return false;
      const read = readRecord(record, this.#directory.of(record.topic), this.config);
      return isReadable(read) && except.has(read.definition.name);
    };
    for (const [key, partition] of this.#partitions) {
      if (partition.claims >= CLAIMS_A_PARTITION || partition.restsUntilMs > performance.now()) continue;
      const claim = partition.claim(CLAIM_LIMITS, blocked);
      if (!claim) continue;
      // To the end, so that each has its turn.
      this.#partitions.delete(key);
      this.#partitions.set(key, partition);
      return { partition, claim };
    }
    return null;
  }

  /** A task that was applied a moment ago may be unknown here still: nothing is refused before it was looked up. */
  async #read(records: Incoming[]): Promise<(Readable | Refused)[]> {
    const read = () => records.map((one) => readRecord(one, this.#directory.of(one.topic), this.config));
    const first = read();
    if (first.every(isReadable)) return first;
    await this.#directory.refresh();
    return read();
  }

  async #results(records: (Readable | Refused)[], score: Score): Promise<Results> {
    const outcomes = new Map<string, RecordOutcome>();
    const readable = records.filter(isReadable);
    const traces = new RecordTraces(readable);
    const scoreTask = async ([task, own]: [string, Readable[]]) => {
      const batch = own.map(({ incoming, id, item }) => ({ ref: placeOf(incoming), id, item: itemOf(item) }));
      const scored = await traces.score(own, (trace) => score({ task, records: batch, trace }));
      for (const outcome of scored) outcomes.set(outcome.ref, outcome);
    };
    try {
      await Promise.all([...Map.groupBy(readable, ({ definition }) => definition.name)].map(scoreTask));
      return resultsOf(records, outcomes, traces);
    } finally {
      traces.end();
    }
  }

  /**
   * What of the claim is this worker's to score. The first one of a partition takes it over before it is scored, and
   * then sees to it that the desired versions answer here: who had the partition may have been ahead.
   */
  async #owned(partition: InputPartition, claim: Claim): Promise<Incoming[]> {
    const owned = () => claim.records.filter(({ offset }) => BigInt(offset) >= partition.floor);
    if (partition.checked) return owned();
    await claim.turn;
    if (!claim.cancelled) await this.#guarded(partition, claim, () => this.#takeOver(partition));
    if (claim.cancelled) return [];
    for (const task of this.#directory.of(partition.topic).keys()) {
      // Convergence tells why, and tries again; what answers here until then answers.
      await this.convergence.converge(task).catch((error: unknown) => this.#log.debug(String(error)));
    }
    return owned();
  }

  /** One at a time in a partition, in order. */
  #commit(partition: InputPartition, claim: Claim, results: Results, startedAtMs: number): Promise<void> {
    return this.#guarded(partition, claim, async (writer) => {
      await this.#takeOver(partition);
      const [first] = results.entries;
      if (claim.cancelled || !first) return;
      if (BigInt(first.offset) < partition.floor) throw new Error(`another worker wrote what this one scored`);
      const committedFromMs = performance.now();
      await this.#write(partition, writer, results);
      this.metrics.observe('fewloop_stream_commit_seconds', {}, secondsSince(committedFromMs));
      countKept(this.metrics, keptOf(results));
      this.#lag.rate.kept(results.entries.length, startedAtMs, performance.now());
    });
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
      await this.#closeWriter(key);
      if (error instanceof FewloopError && error.code === 'CONFLICT') this.#contradicted(error);
      if (!FENCED.test((error as { type?: string }).type ?? '')) throw error;
      partition.fail(claim);
      partition.restsUntilMs = performance.now() + REST_AFTER_FENCE_MS;
      this.#log.log(`another worker has taken over ${key}`);
    }
  }

  async #write(partition: InputPartition, writer: Writer, { entries, outgoing }: Results): Promise<void> {
    const { topic, partition: number } = partition;
    const clusterId = (this.#clusterId ??= (await (await this.#adminClient()).describeCluster()).clusterId);
    await this.history.keep({ clusterId, topicId: partition.topicId!, topic, partition: number }, entries);
    const offset = (BigInt(entries.at(-1)!.offset) + 1n).toString();
    await writer.write(outgoing, { topic, partition: number, offset });
  }

  /**
   * After the fence: the offset that counts is the one that is committed now. What another worker has committed since
   * this one fetched is not written again; where fetching began too late, or in a topic that is no more, it begins again.
   * Does nothing where all that is known already.
   */
  async #takeOver(partition: InputPartition): Promise<void> {
    const { topic, partition: number, topicId } = partition;
    const id = (await this.#topicIds.of([topic])).get(topic);
    if (id === undefined) throw new Error(`topic ${topic} is not there`);
    const replaced = topicId !== undefined && topicId !== id;
    if (partition.checked && !replaced) return;
    const admin = await this.#adminClient();
    const committed = (await committedOffsets(admin, this.config.kafkaGroupId, topic)).get(number) ?? 0n;
    const ends = await admin.fetchTopicOffsets(topic);
    const first = BigInt(ends.find((one) => one.partition === number)?.low ?? 0);
    const from = committed > first ? committed : first;
    partition.topicId = id;
    if (replaced || (partition.start ?? 0n) > from) {
      this.#consumer.consumer.seek({ topic, partition: number, offset: from.toString() });
      partition.restart();
    } else {
      partition.floor = from;
      partition.checked = true;
    }
  }

  #openWriter(key: string, { topic, partition }: InputPartition): Writer {
    const writer =
      this.config.kafkaDelivery === 'exactly-once'
        ? new TransactionalWriter(this.#kafka, this.config, topic, partition)
        : new AtLeastOnceWriter(this.#kafka, this.config, () => this.#consumer.consumer);
    this.#writers.set(key, writer);
    return writer;
  }

  async #closeWriter(key: string): Promise<void> {
    const writer = this.#writers.get(key);
    this.#writers.delete(key);
    await writer?.close().catch((error: unknown) => this.#log.debug(`closing a producer: ${String(error)}`));
  }

  /** No second try mends it. */
  #contradicted(error: FewloopError): void {
    if (!this.#contradiction) this.#log.error(`the stream stops: ${error.message}`);
    this.#contradiction = error;
  }

  #adminClient(): Promise<Admin> {
    this.#admin ??= (async () => {
      const admin = this.#kafka.admin();
      await admin.connect();
      return admin;
    })();
    // The next one tries again.
    this.#admin.catch(() => (this.#admin = undefined));
    return this.#admin;
  }
}
