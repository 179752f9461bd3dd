/**
 * Training runs as callers see them: started, listed, cancelled. What happens in one is run-worker.ts.
 * Invariant: a task has at most one run that is QUEUED or RUNNING, over all replicas (an index of the database decides).
 */
import { Inject, Injectable } from '@nestjs/common';

import { FewloopError } from '../common/errors.js';
import type { RunTriggerValue, TrainingRunRow } from '../storage/entities/training-run.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { RunsRepository, type NewRun } from '../storage/runs.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { LearningEvents } from './events.js';
import { JobQueue } from './job-queue.js';
import { ReproductionService } from './reproduction.js';

export const TRAINING_QUEUE = 'training';

export interface TrainingJob {
  runId: string;
}

@Injectable()
export class RunService {
  constructor(
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(RunsRepository) private readonly runs: RunsRepository,
    @Inject(JobQueue) private readonly queue: JobQueue,
    @Inject(LearningEvents) private readonly events: LearningEvents,
    @Inject(ReproductionService) private readonly reproductions: ReproductionService,
  ) {}

  /**
   * `dueAt`: of a schedule. Throws TASK_NOT_FOUND; RUN_IN_PROGRESS; BAD_INPUT where there is nothing to train on.
   * The run is kept before its job is sent: should the process end between the two, RunWorker sends it.
   */
  async start(
    task: string,
    trigger: RunTriggerValue,
    by: string | null,
    reason = `asked for by ${by ?? 'nobody'}`,
    dueAt: Date | null = null,
  ): Promise<TrainingRunRow> {
    if (!(await this.tasks.find(task))) throw new FewloopError('TASK_NOT_FOUND', `there is no task ${task}`);
    const { train } = await this.examples.countBySplit(task);
    if (train === 0) {
      const message = `task ${task} has no labelled text in its train split: import some, or answer questions, first`;
      throw new FewloopError('BAD_INPUT', message, { field: 'task' });
    }
    return this.open({ task, trigger, reason, startedBy: by, dueAt });
  }

  /**
   * Starts a run with the data and settings of another; what came of it is in `reproduction`. Throws RUN_NOT_FOUND,
   * RUN_IN_PROGRESS, CONFLICT where it cannot be repeated as it was.
   */
  async reproduce(id: string, by: string): Promise<TrainingRunRow> {
    const first = await this.get(id);
    const why = await this.reproductions.hindrance(first);
    if (why !== null) throw new FewloopError('CONFLICT', why);
    const reason = `repeats run ${id}, asked for by ${by}`;
    return this.open({ task: first.task, trigger: 'MANUAL', reason, startedBy: by, reproduces: id });
  }

  /** Throws RUN_IN_PROGRESS. */
  private async open(wanted: NewRun): Promise<TrainingRunRow> {
    const { task } = wanted;
    const run = await this.runs.insertOpen(wanted);
    if (!run) throw new FewloopError('RUN_IN_PROGRESS', `task ${task} has a training run that is not over yet`);
    await this.queue.send(TRAINING_QUEUE, run.id, { runId: run.id } satisfies TrainingJob);
    this.events.runChanged(run);
    return run;
  }

  /** Asks a run to stop; it is CANCELLED once its trainer is gone. Throws RUN_NOT_FOUND, CONFLICT where it is over. */
  async cancel(id: string): Promise<TrainingRunRow> {
    const run = await this.get(id);
    if (!(await this.runs.updateOpen(id, { cancelRequested: true }))) {
      throw new FewloopError('CONFLICT', `run ${id} is over: ${run.state}`);
    }
    return this.get(id);
  }

  async get(id: string): Promise<TrainingRunRow> {
    const run = UUID.test(id) ? await this.runs.find(id) : null;
    if (!run) throw new FewloopError('RUN_NOT_FOUND', `there is no run ${id}`);
    return run;
  }

  /** Newest first. */
  list(task: string, first = 20): Promise<TrainingRunRow[]> {
    return this.runs.list(task, first);
  }
}

/** PostgreSQL refuses other strings where an id is compared, which would be an INTERNAL error. */
export const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
