/**
 * The request to make a version active, and its decision.
 *
 *   requested ──▶ approved by a first person, where the task asks for four eyes and nobody started the run: still open
 *       │
 *       ├───────▶ APPROVED (the version is made active, in the same transaction as its ledger entry;
 *       │          or, with `canaryPercent`, answers a share of the requests first: canary.ts)
 *       ├───────▶ REJECTED
 *       └───────▶ SUPERSEDED: by a newer version's request, by another's approval, or by its own comparison made again
 *                 because the champion it was compared with is no longer the active one, or the task has another serving
 *                 policy now, by which other members answer
 *
 * An APPROVED one whose canary another active version cut short may be approved again: the two are compared, as a new one.
 *
 * Invariants: the first decision stands; an approval is of the comparison that the engineer saw; whatever becomes
 * active was opened and checked against its golden texts in this process first.
 */
import { Inject, Injectable } from '@nestjs/common';

import { Clock } from '../common/clock.js';
import { badInput, checkCharacters, FewloopError } from '../common/errors.js';
import { ActivationService } from '../registry/activation.js';
import { ModelRegistry } from '../registry/versions.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import type { DecisionValue, PromotionRow } from '../storage/entities/promotion.js';
import type { TaskRow } from '../storage/entities/task.js';
import type { TrialRow } from '../storage/entities/trial.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { PromotionsRepository } from '../storage/promotions.repository.js';
import { RunsRepository } from '../storage/runs.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { TrialsRepository } from '../storage/trials.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { ActiveVersion } from './active-version.js';
import { CanaryService, TRIALS_CHANNEL } from './canary.js';
import type { Flips } from './gate-differences.js';
import { GateService, type GateComparison } from './gate.js';
import { meets } from './gate-statistics.js';
import { LedgerService } from './ledger.js';
import { Outbox } from './outbox.js';
import { UUID } from './runs.js';

export interface Approval {
  by: string;
  comment?: string | null;
  /** Although the verdict is under the task's minimum; needs a comment. */
  override?: boolean;
}

/** Who decides where no person does. */
export const SERVICE = 'fewloop';

@Injectable()
export class PromotionService {
  constructor(
    @Inject(Clock) private readonly clock: Clock,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(RunsRepository) private readonly runs: RunsRepository,
    @Inject(PromotionsRepository) private readonly promotions: PromotionsRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(LedgerService) private readonly ledger: LedgerService,
    @Inject(Outbox) private readonly outbox: Outbox,
    @Inject(GateService) private readonly gate: GateService,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(ActiveVersion) private readonly active: ActiveVersion,
    @Inject(CanaryService) private readonly canary: CanaryService,
    @Inject(TrialsRepository) private readonly trials: TrialsRepository,
    @Inject(ModelRegistry) private readonly registry: ModelRegistry,
  ) {}

  /** Newest first. */
  list(task: string, first = 20): Promise<PromotionRow[]> {
    return this.promotions.list(task, first);
  }

  /**
   * The version that the alias names now: `champion` answers, `challenger` is the one whose promotion is to be decided.
   * Throws TASK_NOT_FOUND; BAD_INPUT on `alias`; VERSION_NOT_FOUND where there is none.
   */
  async aliased(taskName: string, alias: string): Promise<number> {
    const task = await this.tasks.find(taskName);
    if (!task) throw new FewloopError('TASK_NOT_FOUND', `there is no task ${taskName}`);
    if (alias !== 'champion' && alias !== 'challenger') throw badInput('alias', 'must be champion or challenger');
    const version = alias === 'champion' ? task.activeVersion : await this.challengerOf(taskName);
    if (version === null) throw new FewloopError('VERSION_NOT_FOUND', `task ${taskName} has no ${alias} now`);
    return version;
  }

  async aliasesOf(task: string, version: number, state: string): Promise<string[]> {
    if (state === 'ACTIVE') return ['champion'];
    if (state === 'RETIRED' || state === 'REJECTED') return [];
    return version === (await this.challengerOf(task)) ? ['challenger'] : [];
  }

  private async challengerOf(task: string): Promise<number | null> {
    return (await this.promotions.undecided(task))?.version ?? null;
  }

  /** The comparison, with the texts of rows that have another answer now; null for one that was forgotten since. */
  async reportOf({ task, report }: Pick<PromotionRow, 'task' | 'report'>): Promise<object> {
    const { flips } = report as { flips?: Flips };
    if (!flips) return report;
    const keys = flips.examples.map(({ itemKey }) => itemKey);
    const texts = new Map((await this.examples.findByKeys(task, keys)).map(({ itemKey, text }) => [itemKey, text]));
    const examples = flips.examples.map((example) => ({ ...example, text: texts.get(example.itemKey) ?? null }));
    return { ...report, flips: { ...flips, examples } };
  }

  async get(id: string): Promise<PromotionRow> {
    const promotion = UUID.test(id) ? await this.promotions.find(id) : null;
    if (!promotion) throw new FewloopError('PROMOTION_NOT_FOUND', `there is no promotion ${id}`);
    return promotion;
  }

  /** Once a version: asked again (a run that resumes), the request that stands is answered. Supersedes older ones. */
  request(task: string, version: number, comparison: GateComparison): Promise<PromotionRow> {
    return this.transactions.run(async (tx) => {
      await this.tasks.lock(task, tx);
      const asked = await this.promotions.list(task, 100);
      const standing = asked.find((one) => one.version === version && one.decision !== 'SUPERSEDED');
      return standing ?? this.insert(tx, task, version, comparison);
    });
  }

  /**
   * Where the task asks for four eyes two people take part: who started the run, and another who approves; of a run that
   * a trigger started the first to approve is only noted down, and the promotion stays open for a second. Throws
   * PROMOTION_NOT_FOUND; CONFLICT where it is decided, its champion is no longer the active version, its canary was cut
   * short, or the task's serving policy is another one (the comparison is then made again, as a new promotion that the
   * message names); FORBIDDEN by the task's four eyes; GATE_NOT_PASSED, also by what the task asks of live traffic
   * (`shadowMinutes`); BAD_INPUT on `comment`, also for an override without one; BUNDLE_INVALID where the version cannot
   * serve.
   */
  async approve(id: string, { by, comment = null, override = false }: Approval): Promise<PromotionRow> {
    if (comment !== null) checkCharacters('comment', comment);
    const promotion = await this.get(id);
    await this.requireUnsettled(promotion);
    if (promotion.decision) {
      throw await this.comparedAgain(promotion, 'its canary ended when another version became active');
    }
    const task = await this.taskOf(promotion);
    const isFirst = await this.isFirstOfTwo(promotion, task, by);
    const changed = changedSince(promotion, task);
    if (changed !== null) throw await this.comparedAgain(promotion, changed);
    const overridden = checkGate(await this.lackingOf(promotion, task), { comment, override });
    if (isFirst) return this.approveFirst(promotion, { by, comment, override: overridden });
    const rules = rulesOf(task);
    const shares = promotion.championVersion !== null && rules.canaryPercent > 0 && rules.canaryPercent < 100;
    await this.activation.prepare(promotion.task, promotion.version);
    await this.transactions.run(async (tx) => {
      const now = (await this.tasks.lock(promotion.task, tx))!;
      const meanwhile = changedSince(promotion, now);
      if (meanwhile !== null) throw new FewloopError('CONFLICT', `${meanwhile}: look again`);
      await this.decide(tx, promotion, 'APPROVED', { by, comment, override: overridden });
      await this.promotions.supersedeOpen(promotion.task, id, SERVICE, tx);
      await this.endTrial(tx, promotion.task, by);
      if (shares) return this.canary.begin(tx, promotion, rules, by);
      await this.registry.setActive(promotion.task, promotion.version, tx);
      const { task: name, version, championVersion: from } = promotion;
      await this.outbox.add('model.activated', name, { version, from, by }, tx);
    });
    if (!shares) await this.active.announce(promotion.task, promotion.version);
    return this.get(id);
  }

  /** Throws PROMOTION_NOT_FOUND, CONFLICT where it is decided, BAD_INPUT on `comment`, which is needed. */
  async reject(id: string, { by, comment }: { by: string; comment: string }): Promise<PromotionRow> {
    if (!comment.trim()) throw badInput('comment', 'a rejection says why');
    checkCharacters('comment', comment);
    const promotion = await this.open(id);
    await this.transactions.run(async (tx) => {
      await this.tasks.lock(promotion.task, tx);
      await this.decide(tx, promotion, 'REJECTED', { by, comment, override: false });
      const version = await this.versions.find(promotion.task, promotion.version, tx);
      if (version?.state === 'SHADOW') await this.endTrial(tx, promotion.task, by);
      if (version?.state === 'CANDIDATE' || version?.state === 'SHADOW') {
        await this.versions.setState(promotion.task, promotion.version, 'REJECTED', tx);
      }
    });
    return this.get(id);
  }

  /**
   * Back to the version that was active before the one that is; again, and it goes forth. Where a canary answers a share
   * of the requests, that ends, and nothing else changes. Throws TASK_NOT_FOUND, BAD_INPUT on `reason`, which is needed, CONFLICT where none was active before, BUNDLE_INVALID where it can no longer serve.
   * `onlyFrom`: CONFLICT where another version is active.
   */
  async rollback(taskName: string, reason: string, by: string, onlyFrom?: number): Promise<ModelVersionRow> {
    const task = await this.tasks.find(taskName);
    if (!task) throw new FewloopError('TASK_NOT_FOUND', `there is no task ${taskName}`);
    if (!reason.trim()) throw badInput('reason', 'a rollback says why');
    checkCharacters('reason', reason);
    const trial = onlyFrom === undefined ? await this.trials.openOf(taskName) : null;
    if (trial?.kind === 'CANARY') {
      await this.canary.stop(trial, 'STOPPED', { by, reason });
      return (await this.versions.find(taskName, task.activeVersion!))!;
    }
    const { activeVersion: from, previousVersion: to } = task;
    if (to === null) throw new FewloopError('CONFLICT', `no version of ${taskName} was active before this one`);
    if (onlyFrom !== undefined && from !== onlyFrom) {
      throw new FewloopError('CONFLICT', `version ${onlyFrom} of ${taskName} is not active any more`);
    }
    await this.activation.prepare(taskName, to);
    await this.transactions.run(async (tx) => {
      const now = await this.tasks.lock(taskName, tx);
      if (now?.activeVersion !== from) {
        throw new FewloopError('CONFLICT', 'another version became active at the same moment: look again');
      }
      await this.registry.setActive(taskName, to, tx);
      const digests = await this.active.digests(tx, taskName, { from, to });
      await this.ledger.append(tx, taskName, 'rolled-back', { from, to, digests, by, reason });
      await this.outbox.add('model.rolled-back', taskName, { version: to, from, by, reason }, tx);
    });
    return this.active.announce(taskName, to);
  }

  private async insert(tx: Tx, task: string, version: number, comparison: GateComparison): Promise<PromotionRow> {
    const promotion = await this.promotions.insert({ task, version, ...comparison }, tx);
    await this.promotions.supersedeOpen(task, promotion.id, SERVICE, tx);
    const { id, championVersion, verdict } = promotion;
    await this.outbox.add('promotion.requested', task, { promotion: id, version, championVersion, verdict }, tx);
    return promotion;
  }

  private async open(id: string): Promise<PromotionRow> {
    const promotion = await this.get(id);
    if (promotion.decision) throw await this.decidedAlready(promotion.task, promotion.decision);
    return promotion;
  }

  private async decidedAlready(task: string, decision: string, tx?: Tx): Promise<FewloopError> {
    return decided(decision, decision === 'SUPERSEDED' ? await this.promotions.undecided(task, tx) : null);
  }

  /**
   * Throws CONFLICT where it is decided, unless it was approved for a canary that was cut short: the version is a
   * candidate again, and nothing was asked for since.
   */
  private async requireUnsettled({ id, task, version, decision }: PromotionRow, tx?: Tx): Promise<void> {
    if (decision === null) return;
    const newest = await this.promotions.ofVersion(task, version, tx);
    const state = (await this.versions.find(task, version, tx))?.state;
    const isCutShort = decision === 'APPROVED' && (state === 'CANDIDATE' || state === 'SHADOW') && newest?.id === id;
    if (!isCutShort) throw await this.decidedAlready(task, decision, tx);
    const open = await this.promotions.undecided(task, tx);
    if (!open) return;
    throw new FewloopError(
      'CONFLICT',
      `version ${open.version} is to be decided on first: promotion ${open.id} is open`,
    );
  }

  private async taskOf(promotion: PromotionRow): Promise<TaskRow> {
    const task = await this.tasks.find(promotion.task);
    if (!task) throw new FewloopError('TASK_NOT_FOUND', `there is no task ${promotion.task}`);
    return task;
  }

  /** Whether a second person is to approve after `by`. Throws FORBIDDEN where `by` is the other of the two already. */
  private async isFirstOfTwo(promotion: PromotionRow, task: TaskRow, by: string): Promise<boolean> {
    if (!rulesOf(task).fourEyes) return false;
    const version = await this.versions.find(promotion.task, promotion.version);
    const run = version?.runId ? await this.runs.find(version.runId) : null;
    const other = run?.startedBy ?? promotion.firstApprovalBy;
    if (other !== by) return other === null;
    const did = run?.startedBy ? 'started the run' : 'have approved it: another person is to approve it too';
    throw new FewloopError('FORBIDDEN', `task ${task.name} asks for four eyes: you ${did}`);
  }

  private async approveFirst(promotion: PromotionRow, approval: Required<Approval>): Promise<PromotionRow> {
    const { id, task, version, championVersion: champion, verdict } = promotion;
    await this.transactions.run(async (tx) => {
      if (!(await this.promotions.approveFirst(id, approval.by, tx))) {
        throw new FewloopError('CONFLICT', 'somebody else approved or decided it at the same moment: look again');
      }
      const digests = await this.active.digests(tx, task, { version, champion });
      const body = { promotion: id, version, champion, digests, verdict, ...approval };
      await this.ledger.append(tx, task, 'promotion-approved-first', body);
    });
    return this.get(id);
  }

  /** What the task asks for and this has not, for people. */
  private async lackingOf(promotion: PromotionRow, task: TaskRow): Promise<string[]> {
    const { minVerdict, shadowMinutes } = rulesOf(task);
    const { task: name, version, championVersion, verdict, report } = promotion;
    const lacking: string[] = [];
    if (!meets(verdict, minVerdict)) {
      const { statement = '' } = report as { statement?: string };
      lacking.push(`the verdict is ${verdict}, task ${name} asks for ${minVerdict}. ${statement}`);
    }
    if (shadowMinutes > 0 && championVersion !== null) {
      const shadows = (await this.trials.listOf(name, version)).filter(
        (trial) => trial.kind === 'SHADOW' && trial.against === championVersion && isLongEnough(trial, shadowMinutes),
      );
      if (!shadows.some(({ outcome }) => outcome === 'COMPLETED')) {
        const open = shadows.find(({ endedAt }) => endedAt === null);
        const until = open ? ` until ${open.endsAt!.toISOString()}` : '';
        lacking.push(
          `task ${name} asks that it be compared on live traffic for ${shadowMinutes} minutes first${until}.`,
        );
      }
    }
    return lacking;
  }

  /** A shadow's; a canary of another version is to be stopped by people. Throws CONFLICT. */
  private async endTrial(tx: Tx, task: string, by: string): Promise<void> {
    const trial = await this.trials.openOf(task, tx);
    if (!trial) return;
    if (trial.kind === 'CANARY') {
      throw new FewloopError(
        'CONFLICT',
        `version ${trial.version} of ${task} is a canary now: stop it first (stopTrial)`,
      );
    }
    const { version, against: champion } = trial;
    const end = { outcome: 'SUPERSEDED', reason: 'a version was decided on' } as const;
    await this.trials.end(trial.id, this.clock.now(), end.outcome, end.reason, tx);
    await this.versions.setState(task, version, 'CANDIDATE', tx);
    await this.outbox.add('shadow.ended', task, { version, champion, ...end, by }, tx);
    await tx.query('SELECT pg_notify($1, $2)', [TRIALS_CHANNEL, task]);
  }

  private async comparedAgain(stale: PromotionRow, changed: string): Promise<FewloopError> {
    const comparison = await this.gate.compare(stale.task, stale.version);
    const promotion = await this.transactions.run(async (tx) => {
      await this.tasks.lock(stale.task, tx);
      // To compare takes minutes, and the first decision stands.
      await this.requireUnsettled((await this.promotions.find(stale.id, tx))!, tx);
      return this.insert(tx, stale.task, stale.version, comparison);
    });
    return new FewloopError(
      'CONFLICT',
      `${changed}; compared again as promotion ${promotion.id}: ${promotion.verdict}`,
    );
  }

  private async decide(
    tx: Tx,
    promotion: PromotionRow,
    decision: Exclude<DecisionValue, 'SUPERSEDED'>,
    { by, comment, override }: { by: string; comment: string | null; override: boolean },
  ): Promise<void> {
    const first = await this.promotions.decide(promotion.id, { decision, decidedBy: by, comment, override }, tx);
    if (!first) throw decided('decided');
    const { task, version, championVersion: champion, verdict, report } = promotion;
    const run = await this.runOf(tx, task, version);
    await this.ledger.append(tx, task, decision === 'APPROVED' ? 'promotion-approved' : 'promotion-rejected', {
      promotion: promotion.id,
      version,
      champion,
      digests: await this.active.digests(tx, task, { version, champion }),
      run,
      verdict,
      report,
      ...(promotion.firstApprovalBy === null ? {} : { firstApprovalBy: promotion.firstApprovalBy }),
      by,
      comment,
      override,
    });
  }

  private async runOf(tx: Tx, task: string, version: number): Promise<Record<string, unknown> | null> {
    const runId = (await this.versions.find(task, version, tx))?.runId;
    const run = runId ? await this.runs.find(runId, tx) : null;
    return run && { id: run.id, startedBy: run.startedBy, dataDigest: run.dataDigest };
  }
}

/** Why the comparison is not of what would answer now, for people; null: it is. */
function changedSince(
  { championVersion, report }: PromotionRow,
  { activeVersion, definition }: TaskRow,
): string | null {
  if (activeVersion !== championVersion) {
    return `version ${activeVersion} is active since this was compared with ${championVersion}`;
  }
  const { policy: before } = report as { policy?: string };
  const { policy } = (definition as TaskDefinition).serving;
  if (policy === before) return null;
  return `the serving policy is ${policy} since this was compared by ${before ?? 'one that its report does not name'}`;
}

/** Whether it is overridden. Throws GATE_NOT_PASSED, BAD_INPUT on `comment`. */
function checkGate(lacking: string[], { comment, override }: Pick<Approval, 'comment' | 'override'>): boolean {
  if (lacking.length === 0) return false;
  if (!override) throw new FewloopError('GATE_NOT_PASSED', `${lacking.join(' Also, ')} An override needs a comment.`);
  if (!comment?.trim()) throw badInput('comment', 'an override says why');
  return true;
}

/** Whether it took, or is to take, so many minutes; the database keeps no part of a millisecond. */
export function isLongEnough({ startedAt, endsAt, endedAt }: TrialRow, minutes: number): boolean {
  const end = endedAt ?? endsAt;
  return end !== null && end.getTime() - startedAt.getTime() >= Math.floor(minutes * 60_000);
}

function rulesOf(task: TaskRow): TaskDefinition['learning']['promotion'] {
  return (task.definition as TaskDefinition).learning.promotion;
}

function decided(decision: string, newer: PromotionRow | null = null): FewloopError {
  const open = newer ? `; open is ${newer.id}, of version ${newer.version}` : '';
  return new FewloopError('CONFLICT', `the promotion is ${decision.toLowerCase()} already${open}`);
}
