/**
 * A canary: an approved version answers a share of the requests first. It becomes the active one by itself when its time
 * is over and it has answered enough; it goes back where the guard's rules find a reason, or a person does.
 *
 *   approved ──▶ CANARY ──its time is over, no reason against it──▶ ACTIVE
 *                   ├── a reason (guard-rules.ts), or a person ──▶ REJECTED
 *                   └── another version became active ──▶ CANDIDATE: who approves it again has the two compared
 */
import { Inject, Injectable } from '@nestjs/common';
import { ActivationService } from '../registry/activation.js';
import { ModelRegistry } from '../registry/versions.js';
import { Clock } from '../common/clock.js';
import type { PromotionRow } from '../storage/entities/promotion.js';
import type { TrialOutcome, TrialRow } from '../storage/entities/trial.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import { TrialsRepository } from '../storage/trials.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { ActiveVersion } from './active-version.js';
import { LedgerService } from './ledger.js';
import { Outbox } from './outbox.js';

/** Notices carry the task: its trial began or ended. */
export const TRIALS_CHANNEL = 'fewloop_trials';
const MINUTES = 30;
/** Fewer answers say nothing: it goes on until there are so many. */
export const LEAST_ANSWERS = 50;

@Injectable()
export class CanaryService {
  constructor(
    @Inject(Clock) private readonly clock: Clock,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(TrialsRepository) private readonly trials: TrialsRepository,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(ModelRegistry) private readonly registry: ModelRegistry,
    @Inject(LedgerService) private readonly ledger: LedgerService,
    @Inject(Outbox) private readonly outbox: Outbox,
    @Inject(ActiveVersion) private readonly active: ActiveVersion,
  ) {}

  /** In the transaction of the approval; the task has no open trial. */
  async begin(
    tx: Tx,
    { task, version, championVersion: against }: PromotionRow,
    { canaryPercent: percent, canaryMinutes = MINUTES }: TaskDefinition['learning']['promotion'],
    by: string,
  ): Promise<void> {
    const startedAt = this.clock.now();
    const endsAt = new Date(startedAt.getTime() + canaryMinutes * 60_000);
    const trial = {
      task,
      version,
      against: against!,
      kind: 'CANARY',
      percent,
      startedBy: by,
      startedAt,
      endsAt,
    } as const;
    await this.trials.insert(trial, tx);
    await this.versions.setState(task, version, 'CANARY', tx);
    await this.outbox.add('canary.started', task, { version, from: against, percent, until: endsAt, by }, tx);
    await tx.query('SELECT pg_notify($1, $2)', [TRIALS_CHANNEL, task]);
  }

  /** Makes it the active version. False where it has ended, or another version is active than when it began. */
  async complete(trial: TrialRow): Promise<boolean> {
    const { id, task, version, against, startedBy: by } = trial;
    await this.activation.prepare(task, version);
    const done = await this.transactions.run(async (tx) => {
      const now = await this.tasks.lock(task, tx);
      if (now?.activeVersion !== against) return false;
      if (!(await this.trials.end(id, this.clock.now(), 'COMPLETED', null, tx))) return false;
      await this.registry.setActive(task, version, tx);
      const digests = await this.active.digests(tx, task, { version, champion: against });
      const { percent, startedAt } = trial;
      await this.ledger.append(tx, task, 'canary-completed', {
        version,
        champion: against,
        digests,
        by,
        percent,
        startedAt,
      });
      await this.outbox.add('model.activated', task, { version, from: against, by }, tx);
      await tx.query('SELECT pg_notify($1, $2)', [TRIALS_CHANNEL, task]);
      return true;
    });
    if (done) await this.active.announce(task, version);
    return done;
  }

  /** The version is REJECTED. False where it has ended before. */
  stop(trial: TrialRow, outcome: TrialOutcome, { by, reason }: { by: string; reason: string }): Promise<boolean> {
    const { id, task, version, against, percent, startedAt } = trial;
    return this.transactions.run(async (tx) => {
      await this.tasks.lock(task, tx);
      if (!(await this.trials.end(id, this.clock.now(), outcome, reason, tx))) return false;
      await this.versions.setState(task, version, 'REJECTED', tx);
      const digests = await this.active.digests(tx, task, { version, champion: against });
      const body = { version, champion: against, digests, by, reason, percent, startedAt };
      await this.ledger.append(tx, task, 'canary-stopped', body);
      await this.outbox.add('canary.stopped', task, { version, champion: against, by, reason }, tx);
      await tx.query('SELECT pg_notify($1, $2)', [TRIALS_CHANNEL, task]);
      return true;
    });
  }
}
