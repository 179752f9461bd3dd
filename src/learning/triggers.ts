/**
 * What starts runs by itself: enough new labels since the last run began, the task's schedule, drift of its traffic.
 * Checked by a poll (a few indexed look-ups a task), in every trainer replica at once: the index that allows one open run
 * a task decides, and the one that allows one run a due time. While a run is open, or the cool-down since the last one
 * lasts, what is due waits; however often it becomes due meanwhile, one run answers it. Each run has its reason.
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';

import { Clock } from '../common/clock.js';
import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import type { RunTriggerValue, TrainingRunRow } from '../storage/entities/training-run.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { RunsRepository } from '../storage/runs.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { describeDrift, DriftChecks } from './drift-checks.js';
import type { DriftStatistic } from './drift.js';
import { RunService } from './runs.js';
import { dueSince } from './schedule.js';

const POLL_MS = 5_000;

type TriggerRules = TaskDefinition['learning']['trigger'];
type OwnCooldown = 'newLabels' | 'schedule' | 'drift';

@Injectable()
export class TriggerService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly log = new Logger(TriggerService.name);
  private timer: NodeJS.Timeout | undefined;
  private checking: Promise<void> = Promise.resolve();
  /** Task → the due time for which there was nothing to train on: not tried again. */
  private readonly refused = new Map<string, number>();

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(RunsRepository) private readonly runs: RunsRepository,
    @Inject(RunService) private readonly runService: RunService,
    @Inject(DriftChecks) private readonly drift: DriftChecks,
    @Inject(Clock) private readonly clock: Clock,
  ) {}

  onApplicationBootstrap(): void {
    if (!['all', 'trainer'].includes(this.config.role)) return;
    this.timer = setInterval(() => this.later(() => this.checkAll()), POLL_MS);
    this.later(() => this.checkAll());
  }

  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.timer);
    await this.checking;
  }

  /** Starts a run where the task's new labels ask for one. */
  async checkLabels(name: string): Promise<void> {
    const task = await this.tasks.find(name);
    if (!task) return;
    const { trigger } = (task.definition as TaskDefinition).learning;
    if (trigger.newLabels === null) return;
    if (!(await this.mayStart(name, trigger, 'newLabels'))) return;
    const last = await this.runs.lastOwn(name);
    const added = await this.examples.countSince(name, last?.createdAt ?? null);
    if (added < trigger.newLabels) return;
    const reason = `${added} labels since the last run, ${trigger.newLabels} asked for`;
    await this.start(name, 'NEW_LABELS', reason);
  }

  /** Starts one run for all due times since the schedule was applied or last started one. */
  async checkSchedule(name: string): Promise<void> {
    const task = await this.tasks.find(name);
    if (!task) return;
    const { trigger } = (task.definition as TaskDefinition).learning;
    if (trigger.schedule === null) return;
    const applied = await this.tasks.appliedAt(name, task.revision);
    const handled = await this.runs.lastDue(name);
    const since = Math.max(applied?.getTime() ?? 0, handled?.getTime() ?? 0, this.refused.get(name) ?? 0);
    const due = dueSince(trigger.schedule, new Date(since), this.clock.now());
    if (!due || !(await this.mayStart(name, trigger, 'schedule'))) return;
    const missed = due.missed === 0 ? '' : `, for ${due.missed} earlier due times too`;
    const reason = `its schedule ${trigger.schedule}, due at ${due.at.toISOString()}${missed}`;
    const started = await this.start(name, 'SCHEDULE', reason, due.at);
    if (!started) this.refused.set(name, due.at.getTime());
  }

  /** Looks for drift where that is due, and starts a run for an alarm that none has answered. */
  async checkDrift(name: string): Promise<void> {
    const task = await this.tasks.find(name);
    if (!task) return;
    const { trigger } = (task.definition as TaskDefinition).learning;
    if (trigger.drift === null) return;
    await this.drift.check(name);
    const alarm = await this.drift.unanswered(name);
    if (!alarm || !(await this.mayStart(name, trigger, 'drift'))) return;
    const last = await this.runs.lastOwn(name);
    // A run that began since, or another version, has made it a thing of the past.
    const past = alarm.version !== task.activeVersion || (last !== null && last.createdAt > alarm.checkedAt);
    const reason = describeDrift(alarm.statistics as DriftStatistic[], alarm.level);
    if (!past) await this.start(name, 'DRIFT', reason);
    await this.drift.markAnswered(alarm);
  }

  private async mayStart(task: string, rules: TriggerRules, trigger: OwnCooldown): Promise<boolean> {
    return mayStart(await this.runs.last(task), cooldownOf(rules, trigger), this.clock.now());
  }

  private async checkAll(): Promise<void> {
    for (const { name } of await this.tasks.list()) {
      const checks = [() => this.checkLabels(name), () => this.checkSchedule(name), () => this.checkDrift(name)];
      for (const check of checks) {
        // What is wrong with one trigger holds no other up.
        await check().catch((error: unknown) => this.log.warn(`task ${name}: ${String(error)}`));
      }
    }
  }

  /** False where there is nothing to train on. A run that somebody started at the same moment is one. */
  private async start(task: string, trigger: RunTriggerValue, reason: string, dueAt?: Date): Promise<boolean> {
    try {
      const run = await this.runService.start(task, trigger, null, reason, dueAt);
      this.log.log(`run ${run.id} of ${task}: ${reason}`);
      return true;
    } catch (error) {
      if (!(error instanceof FewloopError)) throw error;
      this.log.log(`no run of ${task} (${reason}): ${error.message}`);
      return error.code === 'RUN_IN_PROGRESS';
    }
  }

  /** One check after the other; one that fails is made again by the poll. */
  private later(check: () => Promise<void>): void {
    this.checking = this.checking.then(check).catch((error: unknown) => this.log.warn(String(error)));
  }
}

/** In minutes. */
export function cooldownOf(
  { cooldownMinutes: given }: Pick<TriggerRules, 'cooldownMinutes'>,
  trigger: OwnCooldown,
): number {
  return typeof given === 'number' ? given : given[trigger];
}

/** No run is open, and the cool-down since the last one, whatever started it, is over. */
export function mayStart(
  last: Pick<TrainingRunRow, 'state' | 'finishedAt' | 'createdAt'> | null,
  cooldownMinutes: number,
  now: Date,
): boolean {
  if (!last) return true;
  if (last.state === 'QUEUED' || last.state === 'RUNNING') return false;
  return now.getTime() - (last.finishedAt ?? last.createdAt).getTime() >= cooldownMinutes * 60_000;
}
