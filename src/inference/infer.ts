/**
 * Step 4: rows wait in a queue and go to their model hosts in batches. One lane for the runners that share hosts, so
 * that slow ones delay no others, and of whatever task the most urgent row goes next; `maxConcurrentBatches` of a lane
 * are in flight, so that the next is with the host when it finishes one, and none waits where no choice is left.
 *
 *   submit ──▶ pending ──takeBatch──▶ in flight ──▶ answered
 *      │          ├── deadline passes: DEADLINE_EXCEEDED, before it cost anything
 *      │          └── whoever asked is gone: CANCELLED, likewise
 *      └── more than `maxQueuedTokens` wait, or so much that its deadline would pass: OVERLOADED (admission.ts)
 */
import { FewloopError } from '../common/errors.js';
import { NO_METRICS, secondsSince, type Metrics } from '../common/metrics/metrics.js';
import { inSpan, type Trace } from '../common/tracing/tracing.js';
import { Admission, type Applicant } from './admission.js';
import {
  groupOf,
  nextTurn,
  NONE_PASSED,
  packBatch,
  rowKey,
  takeBatch,
  type Passed,
  type Pending,
  type Row,
} from './batch.js';
import { exactShape, fixedShape } from './shapes.js';
import type { ClassifyRequest, GraphRunner, HostResult, Priority, ServedModel } from './types.js';

export interface QueueLimits {
  /** Padded tokens of a batch, for models that say nothing of their own. */
  maxBatchTokens: number;
  /** Of the hosts that runners share. */
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
  padId: number;
  maxBatchTokens: number;
}

interface Waiting extends Pending {
  runner: GraphRunner;
  origin: Origin;
  settle(outcome: RowOutcome): void;
  settled: boolean;
}

interface Lane {
  pending: Waiting[];
  passed: Passed;
  inFlight: number;
}

/** Whoever waits for an answer, and for how long. */
type Asker = Pick<ClassifyRequest, 'deadlineAt' | 'signal'>;

/** Whose rows they are, and how long somebody waits for them. */
export type SubmitOptions = Pick<ClassifyRequest, 'priority' | 'deadlineAt' | 'signal' | 'trace'>;

type Asked = Pick<ServedModel, 'task' | 'runner' | 'maxBatchTokens' | 'tokensPerMs'> & { padId: number };

/** Of a row: [CLS], [SEP] and something between them. */
const LEAST_TOKENS = 3;

export class BatchQueue {
  /** By what their runners run on. */
  private readonly lanes = new Map<object, Lane>();
  private readonly admission: Admission;
  private batchesInFlight = 0;

  constructor(
    private readonly limits: QueueLimits,
    private readonly metrics: Metrics = NO_METRICS,
  ) {
    this.admission = new Admission(limits.maxQueuedTokens);
  }

  /** That wait or are in flight. */
  get tokens(): number {
    return this.admission.tokens;
  }

  /** Throws OVERLOADED where so many rows, of whatever length, would be refused: before they are tokenized. */
  check(rows: number, applicant: Applicant): void {
    this.admission.check(rows * LEAST_TOKENS, applicant);
  }

  /** An outcome a row, in order; throws OVERLOADED for all of them before any is queued. */
  async submit(model: Asked, rows: Row[], options: SubmitOptions): Promise<RowOutcome[]> {
    if (rows.length === 0) return [];
    const dropped = whyDropped(options);
    if (dropped) return rows.map(() => dropped);
    const { task, runner, padId, tokensPerMs, maxBatchTokens = this.limits.maxBatchTokens } = model;
    const { priority, deadlineAt, trace } = options;
    this.admission.check(tokensOf(rows), { priority, deadlineAt, tokensPerMs });
    this.admission.wait(tokensOf(rows), priority);
    const hosts = runner.hosts ?? runner;
    const lane = this.lanes.get(hosts) ?? { pending: [], passed: NONE_PASSED, inFlight: 0 };
    this.lanes.set(hosts, lane);
    const enqueuedAtMs = performance.now();
    const origin = { task, priority, enqueuedAtMs, trace, padId, maxBatchTokens };
    const waiting: Waiting[] = [];
    const outcomes = rows.map(
      (row) =>
        new Promise<RowOutcome>((resolve) => {
          const entry: Waiting = {
            row,
            runner,
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
    const unwatch = this.watch(lane, waiting, options);
    this.pump(hosts, lane);
    try {
      return await Promise.all(outcomes);
    } finally {
      unwatch();
    }
  }

  /**
   * When the deadline passes or whoever asked is gone, rows still unanswered fail: pending ones never reach a model,
   * and their place is free at once. Others that ask the same have rows of their own. Returns what ends the watch.
   */
  private watch(lane: Lane, waiting: Waiting[], options: SubmitOptions): () => void {
    return onDropped(options, (error) => {
      const late = new Set(waiting.filter((entry) => !entry.settled));
      const dropped = lane.pending.filter((entry) => late.has(entry));
      lane.pending = lane.pending.filter((entry) => !late.has(entry));
      for (const { row, priority } of dropped) this.admission.wait(-tokensOf([row]), priority);
      for (const entry of late) entry.settle(error);
    });
  }

  private pump(hosts: object, lane: Lane): void {
    while (lane.inFlight < this.limits.maxConcurrentBatches) {
      const turn = nextTurn(lane.pending, lane.passed, performance.now());
      if (!turn) break;
      const { runner, origin } = turn.lead;
      const batch = takeBatch(lane.pending, turn.lead, origin.maxBatchTokens, shapeOf(runner));
      const taken = new Set(batch);
      lane.pending = lane.pending.filter((entry) => !taken.has(entry));
      lane.passed = turn.passed;
      lane.inFlight++;
      for (const { task, priority, enqueuedAtMs } of new Set(batch.map((entry) => entry.origin))) {
        this.metrics.observe('fewloop_queue_seconds', { task, priority }, secondsSince(enqueuedAtMs));
      }
      void this.runBatch(runner, batch, origin).finally(() => {
        lane.inFlight--;
        this.pump(hosts, lane);
        if (lane.inFlight === 0 && lane.pending.length === 0) this.lanes.delete(hosts);
      });
    }
  }

  private async runBatch(
    runner: GraphRunner,
    batch: Waiting[],
    { maxBatchTokens, padId }: Pick<Origin, 'maxBatchTokens' | 'padId'>,
  ): Promise<void> {
    const tokens = tokensOf(batch.map(({ row }) => row));
    const startedAtMs = performance.now();
    this.batchesInFlight++;
    for (const { row, priority } of batch) this.admission.start(tokensOf([row]), priority);
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
      this.admission.note((tokens * this.batchesInFlight) / Math.max(0.1, performance.now() - startedAtMs));
    } catch (cause) {
      this.metrics.add('fewloop_batch_failures_total', { priority });
      const error =
        cause instanceof FewloopError ? cause : new FewloopError('INTERNAL', 'the model host failed', { cause });
      for (const entry of batch) entry.settle(error);
    } finally {
      this.batchesInFlight--;
      for (const { row, priority } of batch) this.admission.end(tokensOf([row]), priority);
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

/** What becomes of work that nobody waits for any more, if it is that. */
export function whyDropped({ deadlineAt, signal }: Asker) {
  if (signal?.aborted) return cancelled();
  return deadlineAt !== undefined && deadlineAt <= Date.now() ? deadlineExceeded() : undefined;
}

/** Calls when from now on nobody waits any more. Returns what ends the watch. */
function onDropped({ deadlineAt, signal }: Asker, drop: (error: FewloopError) => void): () => void {
  const onAbort = () => drop(cancelled());
  signal?.addEventListener('abort', onAbort, { once: true });
  // A longer delay than setTimeout holds would fire at once.
  const delayMs = deadlineAt === undefined ? undefined : Math.min(deadlineAt - Date.now(), 2 ** 31 - 1);
  const timer = delayMs === undefined ? undefined : setTimeout(() => drop(deadlineExceeded()), delayMs);
  return () => {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  };
}

/** As `work` ends, or fails as soon as nobody waits for it any more: what it still comes to is then for `late`. */
export async function whileAwaited<T>(asker: Asker, work: Promise<T>, late: (value: T) => void): Promise<T> {
  const { promise: dropped, reject } = Promise.withResolvers<never>();
  const unwatch = onDropped(asker, reject);
  try {
    return await Promise.race([work, dropped]);
  } catch (error) {
    void work.then(late, () => undefined);
    throw error;
  } finally {
    unwatch();
  }
}

function deadlineExceeded(): FewloopError {
  return new FewloopError('DEADLINE_EXCEEDED', 'the deadline passed before there was an answer');
}

function cancelled(): FewloopError {
  return new FewloopError('CANCELLED', 'whoever asked was gone before there was an answer');
}

function rowOf({ logits, embeddings }: HostResult, i: number, rows: number): RowResult {
  const own = (values: Float32Array) => values.slice((i * values.length) / rows, ((i + 1) * values.length) / rows);
  return { logits: own(logits), embedding: own(embeddings) };
}
