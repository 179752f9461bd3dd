/**
 * Scores what comes through the stream, a batch at a time, and keeps the pool's predictions those of the active model.
 * Invariants: a batch is scored by one model; one bad text fails alone; what cannot be scored for now (no model, no
 * database, a full queue, no model host) stays where it is and is tried again, ever less often.
 *
 *   claim ─▶ score ─▶ commit ─▶ tell who watches, match priors again if due ─▶ claim …
 *     └─ nothing there: candidates that an older model scored, unless a trainer is at work ─▶ wait for a notification,
 *        or for the poll
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import { FewloopError } from '../common/errors.js';
import { Health, type PartHealth } from '../common/health.js';
import type { Trace } from '../common/tracing/tracing.js';
import { Config } from '../config/config.js';
import { tokensOf } from '../inference/cost.js';
import { InferenceEngine } from '../inference/engine.js';
import type { ClassifyRequest, Prediction, ServedModel } from '../inference/types.js';
import { LearningEvents } from '../learning/events.js';
import { ForgetService } from '../learning/forget.js';
import { PoolService } from '../learning/pool.js';
import { RunWorker } from '../learning/run-worker.js';
import { ZeroShotVersions } from '../learning/zero-shot-versions.js';
import { ActivationService } from '../registry/activation.js';
import type { Item } from '../task/types.js';
import { isFault, isolate } from './isolate.js';
import { STREAM_PORT, type RecordOutcome, type StreamBatch, type StreamPort } from './records.js';

/** Candidates that are scored anew together. */
const REFRESH_BATCH = 64;
/** While one lane waits for the database, the other one's batch is with the model. */
const LANES = 2;
const POLL_MS = 2_000;
/** Of this many turns of a busy lane, one goes to candidates with an old prediction. */
const REFRESH_EVERY = 4;
const BLOCKED_MS = 3_000;
/** About what sixteen batches of the default size take. */
const PART_TOKENS = 32_768;
const PART_TRIES = 5;
const PART_WAIT_MS = 500;
const FIRST_BACKOFF_MS = 250;
const LONGEST_BACKOFF_MS = 10_000;

@Injectable()
export class StreamWorker implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #log = new Logger(StreamWorker.name);
  readonly #stop = new AbortController();
  /** What was last said of a pause. */
  #pausedFor = '';
  /** Tasks that nothing can be scored for now → until when, by a clock that nobody sets. */
  readonly #blocked = new Map<string, number>();
  /**
   * Of each task, an item that was scored: where it fails too, the model is at fault and not the texts. Until a text of
   * the task is forgotten, which this may be.
   */
  readonly #control = new Map<string, Item>();
  #lastFailure = '';
  #lanes: Promise<unknown> = Promise.resolve();

  constructor(
    @Inject(Config) private readonly config: Pick<Config, 'role'>,
    @Inject(STREAM_PORT) private readonly port: StreamPort,
    @Inject(InferenceEngine) private readonly engine: Pick<InferenceEngine, 'classify'>,
    @Inject(ActivationService) private readonly activation: Pick<ActivationService, 'current' | 'loaded' | 'peek'>,
    @Inject(PoolService) private readonly pool: Pick<PoolService, 'refresh'>,
    @Inject(ZeroShotVersions) private readonly zeroShot: Pick<ZeroShotVersions, 'rematch'>,
    @Inject(LearningEvents) private readonly events: Pick<LearningEvents, 'predicted'>,
    @Inject(RunWorker) private readonly runs: Pick<RunWorker, 'training'>,
    @Inject(Health) private readonly health: Pick<Health, 'register'>,
    @Inject(ForgetService) private readonly forgetting: Pick<ForgetService, 'forgotten$'>,
  ) {}

  onApplicationBootstrap(): void {
    if (!['all', 'stream'].includes(this.config.role)) return;
    // Where requests are answered too, they are while Kafka is away.
    this.health.register('stream', () => this.#state(), { required: this.config.role === 'stream' });
    this.forgetting.forgotten$.subscribe((task) => this.#control.delete(task));
    const lanes = () => Promise.all(Array.from({ length: LANES }, (_, lane) => this.#run(lane)));
    this.#lanes = this.port.open().then(lanes);
  }

  /** Before models are closed and the database goes: the batches at work are brought to their end. */
  async beforeApplicationShutdown(): Promise<void> {
    this.#stop.abort();
    await this.#lanes;
    await this.port.close();
  }

  #state(): PartHealth {
    const state = this.port.state();
    return this.#pausedFor === '' || !state.ok ? state : { ok: true, reason: `scoring pauses: ${this.#pausedFor}` };
  }

  async #run(lane: number): Promise<void> {
    let backoffMs = 0;
    for (let turn = 1; !this.#stop.signal.aborted; turn++) {
      try {
        const busy = await this.#turn(lane, turn);
        backoffMs = 0;
        if (busy) this.#pausedFor = '';
        if (!busy) await this.#idle();
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        // Once a failure, not once a try: a task may wait for its first model for days.
        const { message } = error as Error;
        if (message !== this.#pausedFor) this.#log.warn(`scoring pauses: ${message}`);
        this.#pausedFor = message;
        const asked = error instanceof FewloopError ? (error.retryAfterMs ?? 0) : 0;
        backoffMs = Math.min(Math.max(backoffMs * 2, FIRST_BACKOFF_MS, asked), LONGEST_BACKOFF_MS);
        // So that workers which failed together do not come back together.
        const jitter = 0.75 + Math.random() / 2;
        await sleep(backoffMs * jitter, undefined, { signal: this.#stop.signal }).catch(() => undefined);
      }
    }
  }

  /** Whether there was something to do. */
  async #turn(lane: number, turn: number): Promise<boolean> {
    const scored = await this.#scoreNext();
    // One lane alone, so that the same candidates are not scored twice.
    if (lane !== 0 || (scored && turn % REFRESH_EVERY !== 0)) return scored;
    // A trainer at work wants the same cores, and what it makes is to replace these scores.
    if (this.runs.training) return scored;
    return (await this.#refreshPool()) || scored;
  }

  async #scoreNext(): Promise<boolean> {
    const now = performance.now();
    for (const [task, until] of this.#blocked) if (until <= now) this.#blocked.delete(task);
    const done: { batch: StreamBatch; outcomes: RecordOutcome[] }[] = [];
    const busy = await this.port.process([...this.#blocked.keys()], async (batch) => {
      const outcomes = await this.#scoreOrBlock(batch);
      done.push({ batch, outcomes });
      return outcomes;
    });
    for (const { batch, outcomes } of done) await this.#afterCommit(batch, outcomes);
    return busy;
  }

  async #scoreOrBlock({ task, records, trace }: StreamBatch): Promise<RecordOutcome[]> {
    try {
      return await this.#score(task, records, trace);
    } catch (error) {
      this.#block(task, error);
      throw error;
    }
  }

  /** Other tasks go on meanwhile. */
  #block(task: string, error: unknown): void {
    if (error instanceof FewloopError && error.code !== 'OVERLOADED')
      this.#blocked.set(task, performance.now() + BLOCKED_MS);
  }

  async #score(task: string, records: StreamBatch['records'], trace: Trace): Promise<RecordOutcome[]> {
    const lease = await this.activation.current(task, records[0]?.item.text);
    try {
      const items = records.map(({ item }) => item);
      const results = await isolate(items, (some) => this.#classifyInParts(lease.model, some, trace));
      await this.#checkModel(lease.model, items, results);
      return records.map(({ ref }, i): RecordOutcome => {
        const result = results[i]!;
        if (!(result instanceof FewloopError)) return { ref, state: 'scored', prediction: result };
        return { ref, state: result.code === 'BAD_INPUT' ? 'refused' : 'failed', error: result };
      });
    } finally {
      lease.release();
    }
  }

  /** So that the queue never holds more of the stream's than keeps the hosts busy: who asks for an answer comes next. */
  async #classifyInParts(model: ServedModel, items: Item[], trace: Trace): Promise<(Prediction | FewloopError)[]> {
    const results: (Prediction | FewloopError)[] = [];
    for (const part of partsOf(model, items)) results.push(...(await this.#classifyPart(model, part, trace)));
    return results;
  }

  /** What was scored of a batch is not given up at once because the queue is full for a moment. */
  async #classifyPart(model: ServedModel, items: Item[], trace: Trace): Promise<(Prediction | FewloopError)[]> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#classify(model, items, { priority: 'bulk', trace });
      } catch (error) {
        const { retryAfterMs = Infinity } = error as FewloopError;
        if (tries === PART_TRIES || retryAfterMs > PART_WAIT_MS) throw error;
        await sleep(retryAfterMs, undefined, { signal: this.#stop.signal });
      }
    }
  }

  /** Throws where nothing could be scored, a text that was scored before not either: no text is to blame for that. */
  async #checkModel(model: ServedModel, items: Item[], results: (Prediction | FewloopError)[]): Promise<void> {
    const scored = results.findIndex((result) => !(result instanceof FewloopError));
    if (scored >= 0) this.#control.set(model.task, items[scored]!);
    const fault = results.find(isFault);
    const control = this.#control.get(model.task);
    if (scored >= 0 || fault === undefined || control === undefined) return;
    // Its recent answer would say nothing of the model.
    const [again] = await this.#classify(model, [control], { priority: 'bulk', anew: true });
    if (isFault(again)) throw fault;
  }

  /** Throws OVERLOADED; everything else is the outcome of an item. */
  async #classify(
    model: ServedModel,
    items: Item[],
    asked: Pick<ClassifyRequest, 'priority' | 'trace' | 'anew'>,
  ): Promise<(Prediction | FewloopError)[]> {
    try {
      const outcomes = await this.engine.classify(model, { ...asked, items });
      const results = outcomes.map((outcome) => (outcome.ok ? outcome.prediction : outcome.error));
      const full = results.find((result) => result instanceof FewloopError && result.code === 'OVERLOADED');
      if (full) throw full;
      return results;
    } catch (error) {
      if (error instanceof FewloopError && error.code === 'OVERLOADED') throw error;
      // A batch that is halved fails many times for one reason.
      if ((error as Error).message !== this.#lastFailure) this.#log.error(error);
      this.#lastFailure = (error as Error).message;
      const failure = new FewloopError('INTERNAL', (error as Error).message, { cause: error });
      return items.map(() => failure);
    }
  }

  async #afterCommit({ task, records }: StreamBatch, outcomes: RecordOutcome[]): Promise<void> {
    const ids = new Map(records.map(({ ref, id }) => [ref, id]));
    for (const outcome of outcomes) {
      if (outcome.state !== 'scored') continue;
      this.events.predicted({ task, id: ids.get(outcome.ref)!, prediction: outcome.prediction });
    }
    await this.#rematch(task);
  }

  async #rematch(task: string): Promise<void> {
    await this.zeroShot.rematch(task).catch((error: unknown) => this.#log.warn(`matching priors: ${String(error)}`));
  }

  /** Throws where it could do nothing for one of the tasks, and had nothing to do for the others. */
  async #refreshPool(): Promise<boolean> {
    let busy = false;
    let failure: unknown;
    for (const task of this.activation.loaded()) {
      if (this.#stop.signal.aborted) return false;
      const lease = this.#blocked.has(task) ? undefined : this.activation.peek(task);
      if (!lease) continue;
      try {
        const { model } = lease;
        busy = (await this.pool.refresh(model, REFRESH_BATCH, (items) => this.#scoreAnew(model, items))) || busy;
      } catch (error) {
        this.#block(task, error);
        failure ??= error;
        continue;
      } finally {
        lease.release();
      }
      // Texts that came in a burst may have ended before the next look was due.
      if (!busy) await this.#rematch(task);
    }
    if (failure !== undefined && !busy) throw failure;
    return busy;
  }

  /** Throws where nothing could be scored and no text is to blame: every candidate was scored once, if by another version. */
  async #scoreAnew(model: ServedModel, items: Item[]): Promise<(Prediction | FewloopError)[]> {
    const results = await isolate(items, (some) => this.#classify(model, some, { priority: 'background' }));
    await this.#checkModel(model, items, results);
    const fault = results.find(isFault);
    if (fault && !this.#control.has(model.task)) throw fault;
    return results;
  }

  async #idle(): Promise<void> {
    const { signal } = this.#stop;
    await new Promise<void>((resolve, reject) => {
      const stopped = () => resolve();
      signal.addEventListener('abort', stopped, { once: true });
      const done = () => signal.removeEventListener('abort', stopped);
      void this.port.wait(POLL_MS).then(resolve, reject).finally(done);
    });
  }
}

/** Parts of about PART_TOKENS. */
function* partsOf(model: ServedModel, items: Item[]): Generator<Item[]> {
  let part: Item[] = [];
  let tokens = 0;
  for (const item of items) {
    const own = tokensOf(model, [item]);
    if (part.length > 0 && tokens + own > PART_TOKENS) {
      yield part;
      part = [];
      tokens = 0;
    }
    part.push(item);
    tokens += own;
  }
  if (part.length > 0) yield part;
}
