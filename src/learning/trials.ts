/**
 * Versions that are tried on live traffic: a shadow is asked too, what it says is compared and told to nobody; a canary
 * (canary.ts) answers a share. What is to be tried is in the database; each process that serves holds the version open
 * beside the active one while it is, told by NOTIFY and by polling, and adds what it saw.
 *
 *   a promotion is asked for, with `shadowMinutes` ──▶ SHADOW, by itself ──its time is over──▶ CANDIDATE
 *   startShadow ──────────────────────────────────────┘  └──── stopTrial, a decision ─────────┘
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { hostname } from 'node:os';
import { Clock } from '../common/clock.js';
import { badInput, checkCharacters, FewloopError } from '../common/errors.js';
import { METRICS, type Metrics } from '../common/metrics/metrics.js';
import { Config } from '../config/config.js';
import { AnswerTap } from '../inference/answer-tap.js';
import { InferenceEngine } from '../inference/engine.js';
import { ServedWindows } from '../inference/served-windows.js';
import { ActivationService, type Beside } from '../registry/activation.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import type { TaskRow } from '../storage/entities/task.js';
import type { TrialOutcome, TrialRow } from '../storage/entities/trial.js';
import { Notifications } from '../storage/notifications.js';
import { PromotionsRepository } from '../storage/promotions.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import { TrialsRepository, type Flip } from '../storage/trials.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { AuditService } from './audit.js';
import { CanaryService, LEAST_ANSWERS, TRIALS_CHANNEL } from './canary.js';
import type { TrafficFigures } from './gate.js';
import { renamed } from './guard.js';
import { reasonsToGoBack } from './guard-rules.js';
import { Outbox } from './outbox.js';
import { PoolService } from './pool.js';
import { isLongEnough, SERVICE } from './promotion.js';
import { ShadowScoring } from './shadow-scoring.js';

const POLL_MS = 5_000;
/** A version that could not be opened here is tried again after so long. */
const RETRY_MS = 60_000;
/** Of a trial; more would keep labelers from what the strategy chooses. */
const ASKED = 30;
const FLIPS = 50;
const MOST_MINUTES = 10_080;

/** A trial in this process. */
interface Held {
  trial: TrialRow;
  beside: Beside;
  scoring: ShadowScoring;
  release: () => void;
}

@Injectable()
export class TrialService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #log = new Logger(TrialService.name);
  readonly #held = new Map<string, Held>();
  /** Trials that could not be opened here → when to try again, monotonic milliseconds. */
  readonly #retries = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  #ended = false;

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(Clock) private readonly clock: Clock,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(Notifications) private readonly notifications: Notifications,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(TrialsRepository) private readonly trials: TrialsRepository,
    @Inject(PromotionsRepository) private readonly promotions: PromotionsRepository,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
    @Inject(AnswerTap) private readonly tap: AnswerTap,
    @Inject(ServedWindows) private readonly windows: ServedWindows,
    @Inject(AuditService) private readonly audit: AuditService,
    @Inject(PoolService) private readonly pool: PoolService,
    @Inject(CanaryService) private readonly canary: CanaryService,
    @Inject(Outbox) private readonly outbox: Outbox,
    @Inject(METRICS) private readonly metrics: Metrics,
  ) {}

  onApplicationBootstrap(): void {
    if (this.config.role === 'trainer') return;
    this.notifications.on(TRIALS_CHANNEL, () => void this.look());
    this.#timer = setInterval(() => void this.look(), POLL_MS);
  }

  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.#timer);
    this.#ended = true;
    await this.#looking;
    await Promise.all([...this.#held.values()].map((held) => this.#release(held)));
  }

  /**
   * Compares a candidate with the active version on live traffic, for so many minutes; the task's `shadowMinutes` where
   * none are named; until it is stopped where those are 0. Once more changes nothing. Throws VERSION_NOT_FOUND;
   * BAD_INPUT on `minutes`; CONFLICT where it is no candidate, or another version is on trial.
   */
  async startShadow(task: string, version: number, by: string, minutes: number | null): Promise<ModelVersionRow> {
    if (minutes !== null && !(minutes > 0 && minutes <= MOST_MINUTES)) {
      throw badInput('minutes', `must be more than 0 and at most ${MOST_MINUTES}`);
    }
    await this.transactions.run(async (tx) => {
      const row = await this.tasks.lock(task, tx);
      const found = row && (await this.versions.find(task, version, tx));
      if (!found) throw new FewloopError('VERSION_NOT_FOUND', `task ${task} has no version ${version}`);
      const open = await this.trials.openOf(task, tx);
      if (open?.kind === 'SHADOW' && open.version === version) return;
      if (open)
        throw new FewloopError('CONFLICT', `version ${open.version} of ${task} is on trial: stop it first (stopTrial)`);
      if (found.state !== 'CANDIDATE') {
        throw new FewloopError(
          'CONFLICT',
          `version ${version} of ${task} is ${found.state}: only a CANDIDATE can be a shadow`,
        );
      }
      if (row.activeVersion === null) {
        throw new FewloopError('CONFLICT', `no version of ${task} answers that it could be compared with`);
      }
      const { shadowMinutes } = rulesOf(row);
      await this.#start(tx, row, version, by, minutes ?? (shadowMinutes || null));
    });
    await this.look();
    return (await this.versions.find(task, version))!;
  }

  /** A shadow is a candidate again; a canary is rejected. Throws CONFLICT where the task has none, BAD_INPUT. */
  async stop(task: string, reason: string, by: string): Promise<TrialRow> {
    if (!reason.trim()) throw badInput('reason', 'a trial is stopped for a reason');
    checkCharacters('reason', reason);
    const trial = await this.trials.openOf(task);
    if (!trial) throw new FewloopError('CONFLICT', `no version of ${task} is on trial`);
    await this.#end(trial, 'STOPPED', { by, reason });
    await this.look();
    return (await this.trials.find(trial.id))!;
  }

  /** Newest first. */
  listOf(task: string, version: number): Promise<TrialRow[]> {
    return this.trials.listOf(task, version);
  }

  /** The most frequent first. */
  flipsOf(trial: string): Promise<Flip[]> {
    return this.trials.flips(trial, FLIPS);
  }

  /** Starts and ends what is due, holds here what is on trial, and adds what was seen. One look at a time. */
  look(): Promise<void> {
    const looked = this.#looking.then(() => this.#look());
    this.#looking = looked.catch((error: unknown) => this.#log.warn(String(error)));
    return this.#looking;
  }

  async #look(): Promise<void> {
    if (this.#ended) return;
    for (const held of this.#held.values()) await this.#add(held);
    for (const task of await this.tasks.list()) await this.#startDue(task);
    for (const trial of await this.trials.listOpen()) {
      // What is wrong with one task holds no other up.
      await this.#judge(trial).catch((error: unknown) => this.#log.warn(`task ${trial.task}: ${String(error)}`));
    }
    const open = await this.trials.listOpen();
    const ids = new Set(open.map(({ id }) => id));
    for (const held of this.#held.values()) if (!ids.has(held.trial.id)) await this.#release(held);
    for (const trial of open) if (!this.#held.has(trial.task)) await this.#hold(trial);
  }

  /** The shadow that the task asks for before a promotion is decided. */
  async #startDue(task: TaskRow): Promise<void> {
    const { shadowMinutes } = rulesOf(task);
    if (shadowMinutes === 0 || task.activeVersion === null) return;
    const promotion = await this.promotions.undecided(task.name);
    if (!promotion || promotion.championVersion !== task.activeVersion) return;
    await this.transactions.run(async (tx) => {
      const now = await this.tasks.lock(task.name, tx);
      if (now?.activeVersion !== promotion.championVersion || (await this.trials.openOf(task.name, tx))) return;
      const before = await this.trials.listOf(task.name, promotion.version);
      const shadows = before.filter(({ kind, against }) => kind === 'SHADOW' && against === now.activeVersion);
      // One that was stopped is for people to begin anew; one that was over too soon is not what the task asks for.
      if (shadows.some((shadow) => shadow.outcome !== 'COMPLETED' || isLongEnough(shadow, shadowMinutes))) return;
      await this.#start(tx, now, promotion.version, SERVICE, shadowMinutes);
    });
  }

  /** The task is locked, and has no open trial. */
  async #start(tx: Tx, task: TaskRow, version: number, by: string, minutes: number | null): Promise<void> {
    const startedAt = this.clock.now();
    const endsAt = minutes === null ? null : new Date(startedAt.getTime() + minutes * 60_000);
    const against = task.activeVersion!;
    const trial = {
      task: task.name,
      version,
      against,
      kind: 'SHADOW',
      percent: null,
      startedBy: by,
      startedAt,
      endsAt,
    } as const;
    await this.trials.insert(trial, tx);
    await this.versions.setState(task.name, version, 'SHADOW', tx);
    await tx.query('SELECT pg_notify($1, $2)', [TRIALS_CHANNEL, task.name]);
  }

  async #judge(trial: TrialRow): Promise<void> {
    const task = (await this.tasks.find(trial.task))!;
    if (task.activeVersion !== trial.against) {
      const reason = `version ${task.activeVersion} is active now`;
      return this.#end(trial, 'SUPERSEDED', { by: SERVICE, reason });
    }
    if (trial.kind === 'CANARY') {
      const reasons = await this.#reasons(trial, task.definition as TaskDefinition);
      if (reasons.length > 0) {
        const reason = `the guard: ${reasons.join('; ')}`;
        this.#log.error(`canary ${trial.version} of ${trial.task} goes back: ${reason}`);
        return this.#end(trial, 'WENT_BACK', { by: SERVICE, reason });
      }
    }
    const over = trial.endsAt !== null && this.clock.now() >= trial.endsAt;
    if (!over) return;
    if (trial.kind === 'SHADOW') return this.#end(trial, 'COMPLETED', { by: SERVICE, reason: null });
    if (trial.answered < LEAST_ANSWERS) return;
    if (await this.canary.complete(trial)) this.#count(trial, 'COMPLETED');
  }

  /** Why the canary is not to go on, by what this process saw of both since it began. */
  async #reasons({ task, version, against, startedAt }: TrialRow, definition: TaskDefinition): Promise<string[]> {
    const promotion = (await this.promotions.list(task, 20)).find((one) => one.version === version);
    const { traffic = null } = (promotion?.report ?? {}) as { traffic?: TrafficFigures | null };
    const [before, now] = [against, version].map((one) =>
      renamed(this.windows.of(task, one, startedAt.getTime()), definition),
    );
    return reasonsToGoBack({
      before: before!,
      now: now!,
      expectedShift: traffic && traffic.labelShift,
      audit: {
        before: await this.audit.accuracyOf(task, against, definition),
        now: await this.audit.accuracyOf(task, version, definition),
      },
    });
  }

  async #end(trial: TrialRow, outcome: TrialOutcome, said: { by: string; reason: string | null }): Promise<void> {
    const { by, reason } = said;
    const own = trial.kind === 'CANARY' && outcome !== 'SUPERSEDED';
    const ended = own
      ? await this.canary.stop(trial, outcome, { by, reason: reason! })
      : await this.#endQuietly(trial, outcome, said);
    if (ended) this.#count(trial, outcome);
  }

  /** The version is a candidate again. */
  #endQuietly(
    trial: TrialRow,
    outcome: TrialOutcome,
    { by, reason }: { by: string; reason: string | null },
  ): Promise<boolean> {
    const { id, task, version, against } = trial;
    return this.transactions.run(async (tx) => {
      await this.tasks.lock(task, tx);
      if (!(await this.trials.end(id, this.clock.now(), outcome, reason, tx))) return false;
      const { state } = (await this.versions.find(task, version, tx))!;
      if (state === trial.kind) await this.versions.setState(task, version, 'CANDIDATE', tx);
      const type = trial.kind === 'SHADOW' ? 'shadow.ended' : 'canary.stopped';
      await this.outbox.add(type, task, { version, champion: against, outcome, reason, by }, tx);
      await tx.query('SELECT pg_notify($1, $2)', [TRIALS_CHANNEL, task]);
      return true;
    });
  }

  #count({ task, kind }: TrialRow, outcome: TrialOutcome): void {
    this.metrics.add('fewloop_trials_ended_total', { task, kind, outcome });
  }

  async #hold(trial: TrialRow): Promise<void> {
    const { id, task, version, against, kind, percent } = trial;
    if (performance.now() < (this.#retries.get(id) ?? 0)) return;
    const definition = (await this.tasks.find(task))!.definition as TaskDefinition;
    let beside;
    try {
      beside = await this.activation.openBeside(task, version, { spare: kind === 'SHADOW' });
    } catch (error) {
      this.#retries.set(id, performance.now() + RETRY_MS);
      const failure = `cannot be opened by ${hostname()}:${process.pid}: ${(error as Error).message}`;
      this.#log.warn(`version ${version} of ${task} is on trial and ${failure}`);
      await this.trials.setFailure(id, failure);
      return;
    }
    if (this.#retries.has(id)) {
      try {
        await this.trials.setFailure(id, null);
      } catch (error) {
        await beside.close();
        throw error;
      }
      this.#retries.delete(id);
    }
    const { model, release } = beside.lease();
    this.tap.open(task, { from: against, watched: version });
    if (kind === 'CANARY') this.activation.divert(task, { share: percent! / 100, lease: () => beside.lease() });
    const scoring = new ShadowScoring(model, definition, this.engine, this.tap);
    this.#held.set(task, { trial, beside, release, scoring });
    this.#log.log(`task ${task}: version ${version} is on trial (${kind.toLowerCase()})`);
  }

  async #release(held: Held): Promise<void> {
    const { trial, beside, scoring, release } = held;
    this.#held.delete(trial.task);
    if (trial.kind === 'CANARY') this.activation.divert(trial.task, null);
    await scoring.stop();
    await this.#add(held).catch((error: unknown) => this.#log.warn(String(error)));
    this.tap.close(trial.task);
    release();
    await beside.close();
  }

  async #add({ trial, scoring }: Held): Promise<void> {
    const { counts, flips, disagreements } = scoring.take();
    const { task } = trial;
    const { compared, changed, failed, missed } = counts;
    const seen = { same: compared - changed, changed, failed, missed };
    for (const [outcome, texts] of Object.entries(seen)) {
      if (texts > 0) this.metrics.add('fewloop_trial_texts_total', { task, outcome }, texts);
    }
    const most = ASKED - ((await this.trials.find(trial.id))?.asked ?? ASKED);
    const asked = most > 0 && disagreements.length > 0 ? await this.pool.ask(task, disagreements, most) : 0;
    if (Object.values(counts).some((count) => count > 0)) await this.trials.add(trial.id, { ...counts, asked }, flips);
  }
}

function rulesOf(task: TaskRow): TaskDefinition['learning']['promotion'] {
  return (task.definition as TaskDefinition).learning.promotion;
}
