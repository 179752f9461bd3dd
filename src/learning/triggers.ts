/**
 * What starts runs by itself: enough new labels since the last run began, and the task's schedule. Drift has its own
 * issue. Checked by a poll (two indexed counts a task), in every trainer replica at once: the index that allows one
 * open run a task decides.
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';

import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import type { RunTriggerValue, TrainingRunRow } from '../storage/entities/training-run.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { RunsRepository } from '../storage/runs.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { JobQueue } from './job-queue.js';
import { RunService } from './runs.js';

const SCHEDULE_QUEUE = 'scheduled-run';
const POLL_MS = 5_000;

interface ScheduledJob {
  task: string;
}

type TriggerRules = TaskDefinition['learning']['trigger'];

@Injectable()
export class TriggerService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly log = new Logger(TriggerService.name);
  private timer: NodeJS.Timeout | undefined;
  private checking: Promise<void> = Promise.resolve();

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(RunsRepository) private readonly runs: RunsRepository,
    @Inject(RunService) private readonly runService: RunService,
    @Inject(JobQueue) private readonly queue: JobQueue,
  ) {}

  async onApplicationBootstrap(): Promise<void> {
    if (!['all', 'trainer'].includes(this.config.role)) return;
    await this.queue.define(SCHEDULE_QUEUE, { retries: 0 });
    await this.queue.work(SCHEDULE_QUEUE, (job) => this.start((job as ScheduledJob).task, 'SCHEDULE', 'its schedule'));
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
    const last = await this.runs.last(name);
    if (!mayStart(last, trigger, new Date())) return;
    const added = await this.examples.countSince(name, last?.createdAt ?? null);
    if (added < trigger.newLabels) return;
    await this.start(name, 'NEW_LABELS', `${added} labels since the last run, ${trigger.newLabels} asked for`);
  }

  /** Makes the queue's cron schedules those of the tasks. */
  async syncSchedules(): Promise<void> {
    const wanted = new Map<string, { cron: string; data: object }>();
    for (const { name, definition } of await this.tasks.list()) {
      const { schedule } = (definition as TaskDefinition).learning.trigger;
      if (schedule !== null) wanted.set(name, { cron: schedule, data: { task: name } satisfies ScheduledJob });
    }
    await this.queue.setSchedules(SCHEDULE_QUEUE, wanted);
  }

  private async checkAll(): Promise<void> {
    await this.syncSchedules();
    for (const { name } of await this.tasks.list()) await this.checkLabels(name);
  }

  private async start(task: string, trigger: RunTriggerValue, reason: string): Promise<void> {
    try {
      const run = await this.runService.start(task, trigger, null, reason);
      this.log.log(`run ${run.id} of ${task}: ${reason}`);
    } catch (error) {
      // One that is in progress, or nothing to train on: the next occurrence asks again.
      if (!(error instanceof FewloopError)) throw error;
      this.log.log(`no run of ${task} (${reason}): ${error.message}`);
    }
  }

  /** One check after the other; one that fails is made again by the poll. */
  private later(check: () => Promise<void>): void {
    this.checking = this.checking.then(check).catch((error: unknown) => this.log.warn(String(error)));
  }
}

/** No run is open, and the cool-down since the last one is over. */
export function mayStart(
  last: Pick<TrainingRunRow, 'state' | 'finishedAt' | 'createdAt'> | null,
  { cooldownMinutes }: Pick<TriggerRules, 'cooldownMinutes'>,
  now: Date,
): boolean {
  if (!last) return true;
  if (last.state === 'QUEUED' || last.state === 'RUNNING') return false;
  return now.getTime() - (last.finishedAt ?? last.createdAt).getTime() >= cooldownMinutes * 60_000;
}
