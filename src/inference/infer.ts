/**
 * Step 4: rows wait in a queue and go to their model host in batches. One lane a runner, so that a slow host delays no
 * other; `maxConcurrentBatches` of a lane are in flight, so that the next is with the host when it finishes one.
 *
 *   submit ──▶ pending ──takeBatch──▶ in flight ──▶ answered
 *      │          └── deadline passes: DEADLINE_EXCEEDED, before it cost anything
 *      └── more than `maxQueuedTokens` wait, or so much that its deadline would pass: OVERLOADED
 */
import { FewloopError } from '../common/errors.js';
import { NO_METRICS, secondsSince, type Metrics } from '../common/metrics/metrics.js';
import { inSpan, type Trace } from '../common/tracing/tracing.js';
import { groupOf, packBatch, rowKey, takeBatch, type Pending, type Row } from './batch.js';
import { exactShape, fixedShape } from './shapes.js';
import type { ClassifyRequest, GraphRunner, HostResult, Priority } from './types.js';

export interface QueueLimits {
  /** Padded tokens of a batch, for runners that say nothing of their own. */
  maxBatchTokens: number;
  /** A runner. */
  maxConcurrentBatches: number;
  /** Tokens that wait or are in flight, over all runners; half of them are for interactive work alone. */
  maxQueuedTokens: number;
}

export interface RowResult {
  /** One a word of the row, or an output of the graph. */
  logits: Float32Array;
  embedding: Float32Array;
}

export type RowOutcome = RowResult | FewloopError;

/** What the rows of one call have in common. */
interface Origin {
  task: string;
  priority: Priority;
  enqueuedAtMs: number;
  trace: Trace;
}

interface Waiting extends Pending {
  origin: Origin;
  settle(outcome: RowOutcome): void;
  settled: boolean;
}

interface Lane {
  pending: Waiting[];
  inFlight: number;
  maxBatchTokens: number;
}

export interface SubmitOptions extends Pick<ClassifyRequest, 'priority' | 'deadlineAt' | 'trace'> {
  /** Whose rows they are, for the metrics. */
  task?: string;
  /** Of the runner's batches; absent: the queue's own limit. */
  maxBatchTokens?: number | undefined;
}

/** Of the time that is left: work that is expected to wait longer is refused, so that what is taken is in time. */
const HEADROOM = 0.7;

export class BatchQueue {
  private readonly lanes = new Map<GraphRunner, Lane>();
  private queuedTokens = 0;
  /** Of them, those of interactive work. */
  private interactiveTokens = 0;
  private batchesInFlight = 0;
  /** What all runners do together, a moving average; unknown before the first batch. */
  private tokensPerMs: number | undefined;

  constructor(
    private readonly limits: QueueLimits,
    private readonly metrics: Metrics = NO_METRICS,
  ) {}

  /** That wait or are in flight. */
  get tokens(): number {
    return this.queuedTokens;
  }

  /** An outcome a row, in order; throws OVERLOADED for all of them before any is queued. */
  async submit(
    runner: GraphRunner,
    rows: Row[],
    padId: number,
    { task = '', priority, deadlineAt, trace, maxBatchTokens = this.limits.maxBatchTokens }: SubmitOptions,
  ): Promise<RowOutcome[]> {
    if (rows.length === 0) return [];
    this.admit(rows, priority, deadlineAt);
    const lane = this.lanes.get(runner) ?? { pending: [], inFlight: 0, maxBatchTokens };
    this.lanes.set(runner, lane);
    const enqueuedAtMs = performance.now();
    const origin = { task, priority, enqueuedAtMs, trace };
    const waiting: Waiting[] = [];
    const outcomes = rows.map(
      (row) =>
        new Promise<RowOutcome>((resolve) => {
          const entry: Waiting = {
            row,
            origin,
            group: groupOf(row),
            priority,
            enqueuedAtMs,
            settled: false,
            settle: (outcome) => {
              entry.settled = true;
              resolve(outcome);
            },
          };
          waiting.push(entry);
        }),
    );
    lane.pending.push(...waiting);
    const cancel = this.expireAt(deadlineAt, lane, waiting);
    this.pump(runner, lane, padId);
    try {
      return await Promise.all(outcomes);
    } finally {
      cancel();
    }
  }

  private admit(rows: Row[], priority: Priority, deadlineAt: number | undefined): void {
    const tokens = tokensOf(rows);
    const { maxQueuedTokens } = this.limits;
    const fits = (queued: number, limit: number) => queued === 0 || queued + tokens <= limit;
    // What is larger than its share may go when nothing of it is taken: else it never could. One text of a task with
    // many hypotheses is as large as a hundred others, and a stream of them must not keep requests out.
    const admitted =
      priority === 'interactive'
        ? fits(this.queuedTokens, maxQueuedTokens) || fits(this.interactiveTokens, maxQueuedTokens / 2)
        : fits(this.queuedTokens, maxQueuedTokens / 2);
    if (!admitted || this.isHopeless(priority, deadlineAt)) {
      const waitMs = Math.ceil(this.queuedTokens / (this.tokensPerMs ?? 1));
      throw new FewloopError('OVERLOADED', 'more texts are waiting than this machine can score soon', {
        retryAfterMs: Math.min(30_000, Math.max(50, waitMs)),
      });
    }
    this.count(rows, priority, 1);
  }

  /** Whether what goes before it takes longer than its deadline allows. */
  private isHopeless(priority: Priority, deadlineAt: number | undefined): boolean {
    if (deadlineAt === undefined || this.tokensPerMs === undefined) return false;
    const before = priority === 'interactive' ? this.interactiveTokens : this.queuedTokens;
    return before > 0 && before / this.tokensPerMs > HEADROOM * (deadlineAt - Date.now());
  }

  private count(rows: Row[], priority: Priority, sign: 1 | -1): void {
    const tokens = sign * tokensOf(rows);
    this.queuedTokens += tokens;
    if (priority === 'interactive') this.interactiveTokens += tokens;
  }

  /** At the deadline rows still unanswered fail: pending ones never reach a model. Returns what cancels it. */
  private expireAt(deadlineAt: number | undefined, lane: Lane, waiting: Waiting[]): () => void {
    if (deadlineAt === undefined) return () => undefined;
    const expire = () => {
      const late = new Set(waiting.filter((entry) => !entry.settled));
      const dropped = lane.pending.filter((entry) => late.has(entry));
      lane.pending = lane.pending.filter((entry) => !late.has(entry));
      for (const entry of dropped) this.count([entry.row], entry.priority, -1);
      for (const entry of late) entry.settle(deadlineExceeded());
    };
    const leftMs = deadlineAt - Date.now();
    if (leftMs <= 0) {
      expire();
      return () => undefined;
    }
    // A longer delay than setTimeout holds would fire at once.
    const timer = setTimeout(expire, Math.min(leftMs, 2 ** 31 - 1));
    return () => clearTimeout(timer);
  }

  private pump(runner: GraphRunner, lane: Lane, padId: number): void {
    while (lane.inFlight < this.limits.maxConcurrentBatches && lane.pending.length > 0) {
      const batch = takeBatch(lane.pending, lane.maxBatchTokens, performance.now(), shapeOf(runner));
      const taken = new Set(batch);
      lane.pending = lane.pending.filter((entry) => !taken.has(entry));
      lane.inFlight++;
      for (const { task, priority, enqueuedAtMs } of new Set(batch.map(({ origin }) => origin))) {
        this.metrics.observe('fewloop_queue_seconds', { task, priority }, secondsSince(enqueuedAtMs));
      }
      void this.runBatch(runner, batch, lane.maxBatchTokens, padId).finally(() => {
        lane.inFlight--;
        this.pump(runner, lane, padId);
        if (lane.inFlight === 0 && lane.pending.length === 0) this.lanes.delete(runner);
      });
    }
  }

  private async runBatch(runner: GraphRunner, batch: Waiting[], maxBatchTokens: number, padId: number): Promise<void> {
    const tokens = tokensOf(batch.map(({ row }) => row));
    const startedAtMs = performance.now();
    this.batchesInFlight++;
    const priority = mostUrgent(batch);
    // Requests that ask the same share a row.
    const askers = Map.groupBy(batch, ({ row }) => rowKey(row));
    try {
      const rows = [...askers.values()].map(([first]) => first!.row);
      const packed = packBatch(rows, padId, shapeOf(runner));
      const result = await traced(batch, () => runner.run(packed));
      this.metrics.observe('fewloop_batch_seconds', { priority }, secondsSince(startedAtMs));
      this.measure(rows, packed.rows * packed.length, priority, maxBatchTokens);
      [...askers.values()].forEach((entries, i) => {
        const row = rowOf(result, i, packed.rows);
        for (const entry of entries) entry.settle(row);
      });
      // Little's law: as many batches as are in flight are done in the time that one takes.
      const rate = (tokens * this.batchesInFlight) / Math.max(0.1, performance.now() - startedAtMs);
      this.tokensPerMs = 0.8 * (this.tokensPerMs ?? rate) + 0.2 * rate;
    } catch (cause) {
      this.metrics.add('fewloop_batch_failures_total', { priority });
      const error =
        cause instanceof FewloopError ? cause : new FewloopError('INTERNAL', 'the model host failed', { cause });
      for (const entry of batch) entry.settle(error);
    } finally {
      this.batchesInFlight--;
      for (const { row, priority } of batch) this.count([row], priority, -1);
    }
  }

  private measure(rows: Row[], tokens: number, priority: Priority, maxBatchTokens: number): void {
    this.metrics.observe('fewloop_batch_tokens', { priority }, tokens);
    this.metrics.observe('fewloop_batch_fill_ratio', { priority }, tokens / maxBatchTokens);
    this.metrics.add('fewloop_batch_padding_tokens_total', { priority }, tokens - tokensOf(rows));
  }
}

function shapeOf({ fixedShapes }: GraphRunner) {
  return fixedShapes ? fixedShape : exactShape;
}

/** The span of a batch is in the trace of one call that has one, and names the others. Its host's time is its own. */
async function traced(batch: Waiting[], run: () => Promise<HostResult>): Promise<HostResult> {
  const [first, ...others] = [...new Set(batch.map(({ origin }) => origin.trace))].filter(
    (trace) => trace !== undefined,
  );
  if (!first) return run();
  return inSpan('batch', first, { links: others, attributes: { 'fewloop.rows': batch.length } }, run);
}

function mostUrgent(batch: Waiting[]): Priority {
  const present = new Set(batch.map(({ priority }) => priority));
  return (['interactive', 'bulk'] as const).find((priority) => present.has(priority)) ?? 'background';
}

function tokensOf(rows: Row[]): number {
  return rows.reduce((sum, { encoding }) => sum + encoding.ids.length, 0);
}

export function deadlineExceeded(): FewloopError {
  return new FewloopError('DEADLINE_EXCEEDED', 'the deadline passed before there was an answer');
}

function rowOf({ logits, embeddings }: HostResult, i: number, rows: number): RowResult {
  const own = (values: Float32Array) => values.slice((i * values.length) / rows, ((i + 1) * values.length) / rows);
  return { logits: own(logits), embedding: own(embeddings) };
}
