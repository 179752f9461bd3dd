/**
 * Keeps the history of Kafka's records within its limits, a small batch at a time, so that nobody waits for it. Of a
 * topic that is there, rows go from the oldest offset on, and only far below the committed one: what may be delivered
 * again is known still. Of a topic that is no more, age alone decides: nothing is delivered from it.
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import type { Kafka } from 'kafkajs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Config } from '../../config/config.js';
import { StreamHistory, type PruneLimits, type RecordSource } from '../../learning/stream-history.js';
import { committedOffsets, connectKafka, withAdmin } from './client.js';
import { TopicIds } from './internals.js';

/** Offsets below the committed one that are kept whatever their age: far more than is in flight. */
const MARGIN = 10_000n;
const BATCH = 2_000;
/** Between two batches, for the autovacuum and for whoever else wants the disk. */
const PAUSE_MS = 100;
const EVERY_MS = 600_000;
const DAY_MS = 86_400_000;
/** Beyond every offset. */
const ALL = 2n ** 63n - 1n;

@Injectable()
export class HistoryPruner implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #log = new Logger(HistoryPruner.name);
  readonly #kafka: Kafka;
  readonly #stop = new AbortController();
  #loop: Promise<void> = Promise.resolve();

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(StreamHistory) private readonly history: Pick<StreamHistory, 'sources' | 'prune'>,
  ) {
    this.#kafka = connectKafka(config);
  }

  onApplicationBootstrap(): void {
    const { role, historyDays, historyRecords } = this.config;
    if (!['all', 'stream'].includes(role) || historyDays + historyRecords === 0) return;
    this.#loop = this.#run();
  }

  async beforeApplicationShutdown(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }

  /** Returns how many rows went. Several workers at once share the work. */
  async prune(): Promise<number> {
    const sources = await this.history.sources();
    if (sources.length === 0) return 0;
    const clusterId = (await withAdmin(this.#kafka, (admin) => admin.describeCluster())).clusterId;
    const ids = await this.#topicIds([...new Set(sources.map(({ topic }) => topic))]);
    let total = 0;
    for (const source of sources) {
      const there = source.clusterId === clusterId && ids.get(source.topic) === source.topicId;
      const limits = there ? await this.#limitsOf(source) : this.#limits(ALL, null);
      if (limits) total += await this.#pruneSource(source, limits);
    }
    return total;
  }

  /** Null where the group has committed nothing: all of it may come again. */
  async #limitsOf({ topic, partition }: RecordSource): Promise<PruneLimits | null> {
    const { kafkaGroupId, historyRecords } = this.config;
    const committed = await withAdmin(this.#kafka, (admin) => committedOffsets(admin, kafkaGroupId, topic));
    const offset = committed.get(partition);
    if (offset === undefined) return null;
    return this.#limits(offset - MARGIN, historyRecords > 0 ? offset - BigInt(historyRecords) : null);
  }

  #limits(below: bigint, anyAgeBelow: bigint | null): PruneLimits {
    const { historyDays } = this.config;
    return {
      below,
      anyAgeBelow: anyAgeBelow === null || anyAgeBelow < below ? anyAgeBelow : below,
      before: historyDays > 0 ? new Date(Date.now() - historyDays * DAY_MS) : null,
    };
  }

  async #pruneSource(source: RecordSource, limits: PruneLimits): Promise<number> {
    const { signal } = this.#stop;
    for (let total = 0; ;) {
      const pruned = await this.history.prune(source, limits, BATCH);
      total += pruned;
      if (pruned < BATCH || signal.aborted) return total;
      await sleep(PAUSE_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  async #topicIds(topics: string[]): Promise<Map<string, string>> {
    const ids = new TopicIds(this.#kafka);
    try {
      return await ids.of(topics);
    } finally {
      await ids.close();
    }
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await sleep(EVERY_MS * (0.75 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      try {
        const pruned = await this.prune();
        if (pruned > 0) this.#log.log(`${pruned} old rows of the stream's history are gone`);
      } catch (error) {
        this.#log.warn(`pruning the stream's history: ${(error as Error).message}`);
      }
    }
  }
}
