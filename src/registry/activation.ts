/**
 * Which model answers for a task in this process, and how it is replaced while requests are in flight.
 *
 *   closed ──open: digests, hosts, golden texts──▶ prepared ──pointer──▶ current ──next one's pointer──▶ draining ──▶ closed
 *                                                     ▲                     └──next one's pointer──▶ replaced ──▶ closed
 *                                                     └──────── a rollback ────────────────────────────┘
 *
 * A request takes a lease and keeps its model to its end: no answer mixes versions, and no model is closed under a
 * request. Whatever fails before the pointer moves leaves the current model as it is. A replaced model stays open for
 * `warmMinutes`, so that going back to it is no more than the pointer, unless another one needs its memory.
 *
 * Routing and the serving policy are the task's, not the version's: every open model follows its task's newest revision.
 *
 * A current model that nobody has asked for long, or whose memory another one needs, is given back and rests; the next
 * request opens it again, digests, golden texts and all.
 */
import { Inject, Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import { FewloopError } from '../common/errors.js';
import { METRICS, NO_METRICS, secondsSince, type Metrics } from '../common/metrics/metrics.js';
import { Config } from '../config/config.js';
import type { ServedModel } from '../inference/types.js';
import { HostPool } from '../runtime/host-pool.js';
import type { TaskRow } from '../storage/entities/task.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import { withRoutingOf } from '../task/answering.js';
import { fraction } from '../task/keys.js';
import { hasZeroShot } from '../task/support.js';
import type { Precision, TaskDefinition } from '../task/types.js';
import { BatchBudgets } from './batch-budget.js';
import type { Bundle } from './bundle.js';
import { Bundles } from './bundles.js';
import { verifyGolden } from './golden.js';
import { openInPrecision } from './precision.js';
import { RehearsalEngine } from './rehearsal.js';
import { budgetKind, openBundle, type OpenModel, type OpenOptions } from './served-model.js';

/** What a model may take of the machine. */
type Room = Pick<OpenOptions, 'mayEvict' | 'spare'>;

/** A share of a task's requests that another version answers. */
export interface Diversion {
  /** In (0, 1). */
  share: number;
  lease: () => ModelLease;
}

/** A version that was opened beside the one that answers; whoever opened it closes it. */
export interface Beside {
  lease(): ModelLease;
  /** Once those who hold leases have released them. */
  close(): Promise<void>;
}

export interface ModelLease {
  model: ServedModel;
  /** That its hosts take for it alone; 0 where others use them too. */
  bytes(): number;
  /** To be called once the answer is complete; a second call does nothing. */
  release(): void;
}

/** How long a prepared model waits for its activation before its memory is given back. */
const PREPARED_KEPT_MS = 60_000;

/** For how long requests get the failure of the last attempt, where it does not say itself when to come again. */
const FAILURE_KEPT_MS = 5_000;

const LOOK_FOR_IDLE_MS = 15_000;
/** Node sets a longer one to a millisecond. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Open, and no request is answered by it: before its activation, or after that of the next. */
interface Prepared {
  tenure: Tenure;
  timer: NodeJS.Timeout;
  replaced: boolean;
}

/** Why a version could not be opened here. */
interface Failure {
  version: number;
  error: unknown;
  /** Monotonic milliseconds. */
  untilMs: number;
}

/** An open model and those who use it; closed when it is retired and nobody does. */
class Tenure {
  #users = 0;
  #idle: (() => void) | undefined;
  /** Monotonic milliseconds. */
  lastUsedMs = performance.now();

  constructor(
    readonly open: OpenModel,
    private readonly closed: () => void,
  ) {}

  /** Those who hold a lease keep the routing they began with. */
  follow(now: TaskDefinition): void {
    const { model } = this.open;
    const definition = withRoutingOf(model.definition, now);
    if (definition !== model.definition) this.open.model = { ...model, definition };
  }

  get isIdle(): boolean {
    return this.#users === 0;
  }

  /** `counts`: as a use, which keeps it from resting. */
  lease(counts = true): ModelLease {
    this.#users++;
    let released = false;
    return {
      model: this.open.model,
      bytes: () => this.open.bytes(),
      release: () => {
        if (released) return;
        released = true;
        if (counts) this.lastUsedMs = performance.now();
        if (--this.#users === 0) this.#idle?.();
      },
    };
  }

  async retire(): Promise<void> {
    if (this.#users > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    this.closed();
    await this.open.release();
  }
}

@Injectable()
export class ActivationService implements OnApplicationShutdown {
  readonly #log = new Logger(ActivationService.name);
  readonly #current = new Map<string, Tenure>();
  /** Tasks whose current model was given back → its version. */
  readonly #resting = new Map<string, number>();
  readonly #prepared = new Map<string, Prepared>();
  /** Of each task's last attempt at an activation, where it failed. */
  readonly #failures = new Map<string, Failure>();
  /** Task and version that requests wait for → the attempt that they share. */
  readonly #attempts = new Map<string, Promise<void>>();
  /** Of all tasks, until their hosts are given back. */
  readonly #tenures = new Set<Tenure>();
  /** The last step of each task: steps of one task follow each other. */
  readonly #steps = new Map<string, Promise<unknown>>();
  readonly #draining = new Map<string, Promise<void>>();
  readonly #diversions = new Map<string, Diversion>();
  readonly #idleTimer: NodeJS.Timeout | undefined;

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(HostPool) private readonly hostPool: HostPool,
    @Inject(RehearsalEngine) private readonly engine: RehearsalEngine,
    @Inject(BatchBudgets) private readonly budgets: BatchBudgets,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(Bundles) private readonly bundles: Bundles,
    @Inject(METRICS) private readonly metrics: Metrics = NO_METRICS,
  ) {
    hostPool.makeRoom = () => this.#makeRoom();
    const afterMs = config.idleMinutes * 60_000;
    const look = () => this.#restIdle(afterMs);
    if (afterMs > 0) this.#idleTimer = setInterval(look, Math.min(afterMs, LOOK_FOR_IDLE_MS)).unref();
  }

  /**
   * The model that answers for the task now; where a share of its requests is diverted, `text` (any of the request)
   * decides, the same one always alike. Throws TASK_NOT_FOUND; NO_ACTIVE_MODEL where no version is active, or where the
   * active one could not be opened here: then for some seconds without another attempt.
   */
  async current(task: string, text?: string): Promise<ModelLease> {
    const diversion = this.#diversions.get(task);
    if (diversion && text !== undefined && fraction('canary', task, text) < diversion.share) return diversion.lease();
    const tenure = this.#current.get(task);
    if (tenure) return tenure.lease();
    const row = await this.tasks.find(task);
    if (!row) throw new FewloopError('TASK_NOT_FOUND', `there is no task ${task}`);
    if (row.activeVersion === null) throw noActiveModel(row);
    try {
      await this.#wake(task, row.activeVersion);
    } catch (cause) {
      if (isOverloaded(cause)) throw cause;
      const text = `version ${row.activeVersion} of task ${task} cannot be served: ${(cause as Error).message}`;
      throw new FewloopError('NO_ACTIVE_MODEL', text, { cause });
    }
    return this.current(task);
  }

  /** Any version, active or not, verified and open until released: for the gate and for rehearsals. */
  async openVersion(task: string, version: number): Promise<ModelLease> {
    const current = this.#current.get(task);
    if (current?.open.model.version === version) return current.lease();
    const tenure = await this.#open(task, version);
    const lease = tenure.lease();
    const release = () => {
      lease.release();
      void tenure.retire().catch((error: unknown) => this.#log.error(error));
    };
    return { ...lease, release };
  }

  /**
   * A version to be tried beside the one that answers. `spare`: with what memory and processor time is left over, so
   * that nobody waits for it. Throws as `prepare`, and OVERLOADED where there is no memory.
   */
  async openBeside(task: string, version: number, { spare }: { spare: boolean }): Promise<Beside> {
    // What the task itself keeps warm is no reason to do without.
    if (this.#prepared.get(task)?.replaced) await this.#step(task, () => this.#dropPrepared(task));
    const tenure = await this.#open(task, version, { spare });
    return { lease: () => tenure.lease(), close: () => tenure.retire() };
  }

  /** From now on; null: no more. Its lease must be to be had until then. */
  divert(task: string, diversion: Diversion | null): void {
    if (diversion) this.#diversions.set(task, diversion);
    else this.#diversions.delete(task);
  }

  /** What the task's newest revision says of routing is so for all of its models that are open here. */
  follow({ name, definition }: Pick<TaskRow, 'name' | 'definition'>): void {
    for (const tenure of this.#tenures) {
      if (tenure.open.model.task === name) tenure.follow(definition as TaskDefinition);
    }
  }

  /** The model that answers for the task, if it is open; not counted as a use of it. */
  peek(task: string): ModelLease | undefined {
    return this.#current.get(task)?.lease(false);
  }

  /** Task → version that answers in this process, at once or, where it rests, when it is asked. */
  served(): Record<string, number> {
    const open = [...this.#current].map(([task, tenure]) => [task, tenure.open.model.version] as const);
    return Object.fromEntries([...this.#resting, ...open]);
  }

  /** Tasks whose model is open. */
  loaded(): string[] {
    return [...this.#current.keys()];
  }

  /** In which precision this process serves the version; undefined where it does not. */
  precisionOf(task: string, version: number): Precision | undefined {
    const open = this.#current.get(task)?.open;
    return open?.model.version === version ? open.precision : undefined;
  }

  /**
   * Opens and verifies a version ahead of its activation, so that a bundle that cannot serve fails before anything is
   * decided. Throws VERSION_NOT_FOUND, BUNDLE_INVALID.
   */
  prepare(task: string, version: number): Promise<void> {
    return this.#step(task, async () => {
      if (this.#current.get(task)?.open.model.version === version) return;
      const tenure = (await this.#takePrepared(task, version)) ?? (await this.#open(task, version));
      this.#keep(task, tenure, PREPARED_KEPT_MS, false);
    });
  }

  /**
   * Makes the version the one that answers here. Resolves when it does; the one before stays open for a while or drains
   * behind it, and the next one of the task waits for its end, so that a task never holds more than two. Throws as
   * `prepare`.
   *
   * `mayRest`: where other tasks have the memory, they keep it, and a task's first version here rests until it is asked.
   * `onDemand`: only where none answers, and not so soon after an attempt that failed.
   */
  activate(task: string, version: number, { mayRest = false, onDemand = false } = {}): Promise<void> {
    return this.#step(task, async () => {
      const before = this.#current.get(task);
      if (before && (onDemand || before.open.model.version === version)) return;
      const failure = this.#failures.get(task);
      if (failure?.version === version) {
        // One that is ready to take its place must not wait for another attempt, nor be given back for it.
        const isToBeReplaced = this.#prepared.get(task)?.replaced === false;
        if (isToBeReplaced || (onDemand && performance.now() < failure.untilMs)) throw failure.error;
      }
      const startedAtMs = performance.now();
      await this.#draining.get(task);
      const rests = mayRest && !before;
      let next = await this.#takePrepared(task, version);
      try {
        next ??= await this.#open(task, version, { mayEvict: !rests });
      } catch (error) {
        if (!rests || !isOverloaded(error)) {
          const { retryAfterMs = FAILURE_KEPT_MS } = error as FewloopError;
          this.#failures.set(task, { version, error, untilMs: performance.now() + retryAfterMs });
          throw error;
        }
        this.#failures.delete(task);
        this.#resting.set(task, version);
        return;
      }
      // Read again: the next one, or another task's, may have taken the memory of the one before.
      const replaced = this.#current.get(task);
      this.#current.set(task, next);
      this.#resting.delete(task);
      this.#failures.delete(task);
      if (replaced && this.config.warmMinutes > 0) this.#keep(task, replaced, this.config.warmMinutes * 60_000, true);
      else if (replaced) void this.#drain(task, replaced);
      this.metrics.add('fewloop_swaps_total', { task });
      this.metrics.observe('fewloop_swap_seconds', {}, secondsSince(startedAtMs));
      this.#log.log(`task ${task}: version ${version} answers`);
    });
  }

  /** Resolves when no replaced model of the task holds memory any more. */
  async drained(task: string): Promise<void> {
    await this.#steps.get(task);
    await this.#draining.get(task);
  }

  async onApplicationShutdown(): Promise<void> {
    clearInterval(this.#idleTimer);
    await Promise.all(this.#steps.values());
    for (const [task, tenure] of this.#current) void this.#drain(task, tenure);
    this.#current.clear();
    await Promise.all([...this.#prepared.keys()].map((task) => this.#dropPrepared(task)));
    await Promise.all(this.#draining.values());
    await this.hostPool.close();
  }

  /** Gives back a replaced model, else the one that was not asked longest, of those whose memory that frees. */
  async #makeRoom(): Promise<boolean> {
    for (const [task, { tenure, replaced }] of this.#prepared) {
      if (!replaced || !tenure.isIdle || tenure.open.bytes() === 0) continue;
      await this.#dropPrepared(task);
      return true;
    }
    const idle = [...this.#current].filter(([, tenure]) => tenure.isIdle && tenure.open.bytes() > 0);
    const [oldest] = idle.sort(([, a], [, b]) => a.lastUsedMs - b.lastUsedMs);
    if (!oldest) return false;
    await this.#rest(...oldest);
    return true;
  }

  #restIdle(afterMs: number): void {
    for (const [task, tenure] of this.#current) {
      if (tenure.isIdle && performance.now() - tenure.lastUsedMs >= afterMs) void this.#rest(task, tenure);
    }
  }

  #rest(task: string, tenure: Tenure): Promise<void> {
    const { version } = tenure.open.model;
    this.#current.delete(task);
    this.#resting.set(task, version);
    this.#log.log(`task ${task}: version ${version} rests`);
    return this.#drain(task, tenure);
  }

  /** One attempt for all requests that come while the model is closed. */
  #wake(task: string, version: number): Promise<void> {
    const key = `${task} ${version}`;
    let attempt = this.#attempts.get(key);
    if (!attempt) {
      attempt = this.activate(task, version, { onDemand: true }).finally(() => this.#attempts.delete(key));
      this.#attempts.set(key, attempt);
    }
    return attempt;
  }

  async #open(task: string, version: number, room: Room = {}): Promise<Tenure> {
    const row = await this.versions.find(task, version);
    if (!row) throw new FewloopError('VERSION_NOT_FOUND', `task ${task} has no version ${version}`);
    const bundle = await this.bundles.read(row);
    const open = await openInPrecision(bundle, this.config, {
      open: (precision) => this.#openVerified(bundle, precision, room),
      rateOf: (precision) => this.budgets.rateOf(budgetKind(bundle.manifest, precision)),
    });
    const tenure = new Tenure(open, () => this.#tenures.delete(tenure));
    this.#tenures.add(tenure);
    try {
      // Read once it is among those that follow: a revision that comes meanwhile is in one or the other.
      const now = await this.tasks.find(task);
      if (now) this.follow(now);
      if (this.#failures.get(task)?.version === version) this.#failures.delete(task);
      return tenure;
    } catch (error) {
      await tenure.retire();
      throw error;
    }
  }

  async #openVerified(bundle: Bundle, precision: Precision, room: Room): Promise<OpenModel> {
    const open = await openBundle(bundle, this.hostPool, { ...room, budgets: this.budgets, precision });
    try {
      await verifyGolden(this.engine, open.model, bundle.golden, open.precisionOf);
      return open;
    } catch (error) {
      await open.release();
      throw error;
    }
  }

  #step<T>(task: string, action: () => Promise<T>): Promise<T> {
    const before = this.#steps.get(task) ?? Promise.resolve();
    const result = before.then(action);
    const settled = result.catch(() => undefined);
    this.#steps.set(task, settled);
    return result;
  }

  /** The task has no other prepared. */
  #keep(task: string, tenure: Tenure, forMs: number, replaced: boolean): void {
    const drop = () => void this.#step(task, () => this.#dropPrepared(task));
    const timer = setTimeout(drop, Math.min(forMs, LONGEST_TIMER_MS)).unref();
    this.#prepared.set(task, { tenure, timer, replaced });
  }

  async #takePrepared(task: string, version: number): Promise<Tenure | undefined> {
    const prepared = this.#prepared.get(task);
    if (prepared?.tenure.open.model.version !== version) {
      await this.#dropPrepared(task);
      return undefined;
    }
    clearTimeout(prepared.timer);
    this.#prepared.delete(task);
    return prepared.tenure;
  }

  async #dropPrepared(task: string): Promise<void> {
    const prepared = this.#prepared.get(task);
    if (!prepared) return;
    this.#prepared.delete(task);
    clearTimeout(prepared.timer);
    await prepared.tenure.retire();
  }

  #drain(task: string, tenure: Tenure): Promise<void> {
    const before = this.#draining.get(task);
    const drained = Promise.all([before, tenure.retire()])
      .catch((error: unknown) => this.#log.error(error))
      .finally(() => this.#draining.get(task) === drained && this.#draining.delete(task)) as Promise<void>;
    this.#draining.set(task, drained);
    return drained;
  }
}

function isOverloaded(error: unknown): boolean {
  return error instanceof FewloopError && error.code === 'OVERLOADED';
}

function noActiveModel({ name, definition }: TaskRow): FewloopError {
  const why = hasZeroShot(definition as TaskDefinition)
    ? ''
    : ': only PET answers without training, so it answers once its first run is promoted';
  return new FewloopError('NO_ACTIVE_MODEL', `task ${name} has no active model yet${why}`);
}
