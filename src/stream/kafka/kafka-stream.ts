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
import type { Batch, Kafka } from 'kafkajs';
import { FewloopError } from '../../common/errors.js';
import type { PartHealth } from '../../common/health.js';
import { METRICS, secondsSince, type Metrics } from '../../common/metrics/metrics.js';
import type { Trace } from '../../common/tracing/tracing.js';
import { Config } from '../../config/config.js';
import { itemOf } from '../../learning/data-set.js';
import { StreamHistory } from '../../learning/stream-history.js';
import { ConvergenceService } from '../../registry/convergence.js';
import { countKept } from '../kept-metrics.js';
import type { RecordOutcome, StreamBatch, StreamPort } from '../records.js';
import { Waiters } from '../waiters.js';
import { ClaimSize } from './claim-size.js';
import { connectKafka, uncommittedRanges } from './client.js';
import { Committer } from './committer.js';
import { InputConsumer } from './input-consumer.js';
import { InputPartition, type Claim } from './input-partition.js';
import { TopicIds } from './internals.js';
import { StreamLag } from './lag.js';
import { isReadable, readRecord, type Incoming, type Readable, type Refused } from './record.js';
import { RecordTraces } from './record-traces.js';
import { keptOf, resultsOf, type Results } from './results.js';
import { isWithoutModel, Patience } from './patience.js';
import { TaskDirectory } from './task-directory.js';

type Score = (batch: StreamBatch) => Promise<RecordOutcome[]>;

const CLAIM_BYTES = 1_000_000;
/** While one claim of a partition is committed, the next is scored. */
const CLAIMS_A_PARTITION = 2;
const HIGH_WATER = { claims: 4, bytes: 8_000_000 };

@Injectable()
export class KafkaStream implements StreamPort {
  readonly #log = new Logger(KafkaStream.name);
  readonly #kafka: Kafka;
  readonly #consumer: InputConsumer;
  readonly #directory: TaskDirectory;
  readonly #waiters = new Waiters();
  readonly #patience: Patience;
  /** By `topic:partition`, the one that waits longest first. */
  #partitions = new Map<string, InputPartition>();
  readonly #paused = new Set<string>();
  readonly #topicIds: TopicIds;
  readonly #claimSize = new ClaimSize();
  readonly #committer: Committer;
  readonly #lag = new StreamLag((topic) =>
    this.#committer.ask((admin) => uncommittedRanges(admin, this.config.kafkaGroupId, topic)),
  );

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TaskDirectory) directory: TaskDirectory,
    @Inject(StreamHistory) history: Pick<StreamHistory, 'keep'>,
    @Inject(ConvergenceService) private readonly convergence: Pick<ConvergenceService, 'converge'>,
    @Inject(METRICS) private readonly metrics: Metrics,
  ) {
    this.#kafka = connectKafka(config);
    this.#topicIds = new TopicIds(this.#kafka);
    this.#patience = new Patience(config.kafkaModelPatienceS * 1000);
    this.#directory = directory;
    this.#consumer = new InputConsumer(this.#kafka, config, directory, this.#topicIds, {
      assigned: (partitions) => this.#assigned(partitions),
      fetched: (batch) => this.#fetched(batch),
      passed: ({ topic, partition }, position, high) =>
        this.#partitions.get(`${topic}:${partition}`)?.passed(position, high),
      cut: (error) =>
        this.#committer.contradicted(
          new FewloopError('CONFLICT', `${error.message}: the topic's history has changed under its offsets`),
        ),
    });
    this.#committer = new Committer(this.#kafka, config, history, this.#topicIds, () => this.#consumer.consumer);
  }

  async open(): Promise<void> {
    this.#consumer.start();
    this.metrics.onScrape('stream', (set) => {
      const views = [...this.#partitions.values()].map(({ view }) => view);
      return this.#lag.gauges(set, views, ({ topic, partition }) => !this.#paused.has(`${topic}:${partition}`));
    });
  }

  state(): PartHealth {
    const { contradiction } = this.#committer;
    return contradiction ? { ok: false, reason: contradiction.message } : this.#consumer.state();
  }

  async process(exceptTasks: string[], score: Score): Promise<boolean> {
    if (this.#committer.contradiction) throw this.#committer.contradiction;
    const claimed = this.#claim(new Set(exceptTasks));
    if (!claimed) return false;
    const { partition, claim } = claimed;
    const startedAtMs = performance.now();
    try {
      const records = await this.#owned(partition, claim);
      const scoredFromMs = performance.now();
      const results = await this.#results(await this.#read(records), score);
      this.#claimSize.scored(records.length, performance.now() - scoredFromMs);
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
    await this.#committer.close();
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
    if (!this.#partitions.has(key)) await this.#committer.closeWriter(key);
  }

  #fetched({ topic, partition, messages, ...batch }: Batch): void {
    const key = `${topic}:${partition}`;
    const state = this.#partitions.get(key);
    if (!state || this.#committer.contradiction) return;
    const records = messages.map(({ offset, timestamp, key: recordKey, value, headers }): Incoming => {
      return { topic, partition, offset, timestamp, key: recordKey, value, headers: headers ?? {} };
    });
    const { fetchedOffset } = batch as unknown as { fetchedOffset: string };
    state.push(BigInt(fetchedOffset), BigInt(records.at(-1)!.offset), records);
    if (state.waiting > HIGH_WATER.claims * this.#claimSize.records || state.bytes > HIGH_WATER.bytes) {
      this.#paused.add(key);
      this.#consumer.pause(topic, partition);
    }
    this.#waiters.wake();
  }

  #resume(state: InputPartition): void {
    const key = `${state.topic}:${state.partition}`;
    if (this.#partitions.get(key) !== state || !this.#paused.has(key)) return;
    if (state.waiting > this.#claimSize.records || state.bytes > HIGH_WATER.bytes / 2) return;
    this.#paused.delete(key);
    this.#consumer.resume(state.topic, state.partition);
  }

  #claim(except: Set<string>): { partition: InputPartition; claim: Claim } | null {
    const blocked = (record: Incoming): boolean => {
      if (except.size === 0) return false;
      const read = readRecord(record, this.#directory.of(record.topic), this.config);
      if (!isReadable(read)) return false;
      const { name } = read.definition;
      return except.has(name) && !this.#isGivenUp(record.topic, name);
    };
    for (const [key, partition] of this.#partitions) {
      if (partition.claims >= CLAIMS_A_PARTITION || partition.restsUntilMs > performance.now()) continue;
      const claim = partition.claim({ records: this.#claimSize.records, bytes: CLAIM_BYTES }, blocked);
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
      const batch = own.map(({ incoming, id, item }) => ({ ref: incoming.offset, id, item: itemOf(item) }));
      const { topic } = own[0]!.incoming;
      const scoreWithin = (trace: Trace) => this.#scoreOrGiveUp(topic, { task, records: batch, trace }, score);
      for (const outcome of await traces.score(own, scoreWithin)) outcomes.set(outcome.ref, outcome);
    };
    try {
      await Promise.all([...Map.groupBy(readable, ({ definition }) => definition.name)].map(scoreTask));
      return resultsOf(records, outcomes, traces);
    } finally {
      traces.end();
    }
  }

  async #scoreOrGiveUp(topic: string, batch: StreamBatch, score: Score): Promise<RecordOutcome[]> {
    const { task, records } = batch;
    try {
      const outcomes = await score(batch);
      this.#patience.scored(task);
      return outcomes;
    } catch (error) {
      this.#patience.failed(task, error);
      if (!this.#isGivenUp(topic, task) || !isWithoutModel(error)) throw error;
      return records.map(({ ref }) => ({ ref, state: 'refused', error }));
    }
  }

  /** On a topic of its own a task holds up nobody, and its records wait for its first model. */
  #isGivenUp(topic: string, task: string): boolean {
    return this.#directory.of(topic).size > 1 && this.#patience.isOver(task);
  }

  /**
   * What of the claim is this worker's to score. The first one of a partition takes it over before it is scored, and
   * then sees to it that the desired versions answer here: who had the partition may have been ahead.
   */
  async #owned(partition: InputPartition, claim: Claim): Promise<Incoming[]> {
    const owned = () => claim.records.filter(({ offset }) => BigInt(offset) >= partition.floor);
    if (partition.checked) return owned();
    await claim.turn;
    if (!claim.cancelled) await this.#committer.takeOver(partition, claim);
    if (claim.cancelled) return [];
    for (const task of this.#directory.of(partition.topic).keys()) {
      // Convergence tells why, and tries again; what answers here until then answers.
      await this.convergence.converge(task).catch((error: unknown) => this.#log.debug(String(error)));
    }
    return owned();
  }

  async #commit(partition: InputPartition, claim: Claim, results: Results, startedAtMs: number): Promise<void> {
    const committedFromMs = performance.now();
    const kept = await this.#committer.commit(partition, claim, results);
    if (!kept) return;
    this.metrics.observe('fewloop_stream_commit_seconds', {}, secondsSince(committedFromMs));
    countKept(this.metrics, keptOf(kept));
    this.#lag.rate.kept(kept.entries.length, startedAtMs, performance.now());
  }
}
