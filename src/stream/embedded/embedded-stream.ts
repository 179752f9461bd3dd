/**
 * The stream in PostgreSQL. A batch is one transaction: claim, score, write. A worker that is killed lets go of its
 * claim, and nothing of the batch has happened.
 */
import { Inject, Injectable } from '@nestjs/common';
import type { PartHealth } from '../../common/health.js';
import { METRICS, secondsSince, type Metrics, type SetGauge } from '../../common/metrics/metrics.js';
import { itemOf } from '../../learning/data-set.js';
import { PoolService, type ScoredItem } from '../../learning/pool.js';
import type { StreamItemRow } from '../../storage/entities/stream-item.js';
import { Notifications } from '../../storage/notifications.js';
import { StreamItemsRepository, type StreamItemOutcome } from '../../storage/stream-items.repository.js';
import { TasksRepository } from '../../storage/tasks.repository.js';
import { Transactions } from '../../storage/transactions.js';
import type { TaskDefinition } from '../../task/types.js';
import { INGESTED } from './embedded-sink.js';
import { countKept, type Kept } from '../kept-metrics.js';
import type { RecordOutcome, StreamBatch, StreamPort } from '../records.js';
import { Waiters } from '../waiters.js';

/** A record that failed so often, each time alone after the first, is at fault itself. */
const MAX_ATTEMPTS = 5;
const FIRST_RETRY_MS = 1_000;
/**
 * Records of a batch, which is a transaction. The more there are, the fuller and the more alike in length the model's
 * batches are; the longer, too, is all that waits for its end, as a shutdown does.
 */
const FEWEST_RECORDS = 64;
const MOST_RECORDS = 128;
const BATCH_SECONDS = 3;

/** How many records the next batch may have, once a full one of `records` took `seconds`. */
export function nextRecords(records: number, seconds: number): number {
  return Math.min(MOST_RECORDS, Math.max(FEWEST_RECORDS, Math.round((records * BATCH_SECONDS) / seconds)));
}

@Injectable()
export class EmbeddedStream implements StreamPort {
  readonly #waiters = new Waiters();
  #records = FEWEST_RECORDS;

  constructor(
    @Inject(StreamItemsRepository) private readonly items: StreamItemsRepository,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(PoolService) private readonly pool: PoolService,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(Notifications) private readonly notifications: Notifications,
    @Inject(METRICS) private readonly metrics: Metrics,
  ) {}

  async open(): Promise<void> {
    this.notifications.on(INGESTED, () => this.#waiters.wake());
    this.metrics.onScrape('stream', (set) => this.#gauges(set));
  }

  /** The database's trouble is the database's to tell. */
  state(): PartHealth {
    return { ok: true };
  }

  async process(exceptTasks: string[], score: (batch: StreamBatch) => Promise<RecordOutcome[]>): Promise<boolean> {
    let kept: Kept[] = [];
    let scoredAtMs = 0;
    const busy = await this.transactions.run(async (tx) => {
      const rows = await this.items.claim(this.#records, exceptTasks, tx);
      const task = rows[0]?.task;
      if (task === undefined) return false;
      const records = rows.map((row) => ({ ref: row.seq, id: row.externalId, item: itemOf(row) }));
      const startedAtMs = performance.now();
      const outcomes = await score({ task, records });
      const seconds = secondsSince(startedAtMs);
      this.metrics.observe('fewloop_stream_inference_seconds', {}, seconds);
      if (rows.length >= this.#records) this.#records = nextRecords(rows.length, seconds);
      scoredAtMs = performance.now();
      const bySeq = new Map(rows.map((row) => [row.seq, row]));
      const rowsKept = outcomes.map((outcome) => stored(outcome, bySeq.get(outcome.ref)!));
      await this.items.record(rowsKept, tx);
      const scored = outcomes.flatMap((outcome): ScoredItem[] =>
        outcome.state === 'scored' ? [{ item: bySeq.get(outcome.ref)!, prediction: outcome.prediction }] : [],
      );
      const row = await this.tasks.find(task, tx);
      if (row) await this.pool.admit(row.definition as TaskDefinition, scored, tx);
      kept = [
        ...scored.map(({ prediction }) => ({ task, prediction })),
        ...rowsKept.flatMap((one) => (one.state === 'FAILED' ? [{ task, code: one.code }] : [])),
      ];
      return true;
    });
    if (!busy) return false;
    this.metrics.observe('fewloop_stream_commit_seconds', {}, secondsSince(scoredAtMs));
    countKept(this.metrics, kept);
    return true;
  }

  async #gauges(set: SetGauge): Promise<void> {
    const { pending, oldestSeconds } = await this.items.backlog();
    set('fewloop_stream_lag_records', { topic: 'embedded' }, pending);
    set('fewloop_stream_lag_seconds', { topic: 'embedded' }, oldestSeconds);
  }

  wait(timeoutMs: number): Promise<void> {
    return this.#waiters.wait(timeoutMs);
  }

  async close(): Promise<void> {
    this.#waiters.wake();
  }
}

function stored(outcome: RecordOutcome, row: StreamItemRow): StreamItemOutcome {
  const { seq } = row;
  if (outcome.state === 'scored') {
    const { members: _, ...prediction } = outcome.prediction;
    return { seq, state: 'SCORED', prediction, modelVersion: prediction.modelVersion };
  }
  const { code, message } = outcome.error;
  if (outcome.state === 'refused' || row.attempts + 1 >= MAX_ATTEMPTS) return { seq, state: 'FAILED', code, message };
  return { seq, state: 'PENDING', code, message, retryAfterMs: FIRST_RETRY_MS * 2 ** row.attempts };
}
