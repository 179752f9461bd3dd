import { Inject, Injectable } from '@nestjs/common';
import { DataSource, In, IsNull, LessThan, Not } from 'typeorm';
import { TrainingRunRow, type RunTriggerValue } from './entities/training-run.js';
import type { Tx } from './transactions.js';

export interface NewRun {
  task: string;
  trigger: RunTriggerValue;
  reason: string | null;
  startedBy: string | null;
  dueAt?: Date | null;
  reproduces?: string | null;
}

export type RunPatch = Partial<Omit<TrainingRunRow, 'id' | 'task' | 'trigger' | 'createdAt'>>;

const OPEN = In(['QUEUED', 'RUNNING']);

@Injectable()
export class RunsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /**
   * Null where the task has a run that is QUEUED or RUNNING, or one for the same due time: the indexes decide, whichever
   * replica asks first.
   */
  async insertOpen(run: NewRun, tx?: Tx): Promise<TrainingRunRow | null> {
    const manager = tx ?? this.dataSource.manager;
    const rows = await manager.query<{ id: string }[]>(
      `INSERT INTO training_run (task, trigger, reason, started_by, due_at, reproduces)
       VALUES ($1, $2, $3, $4, $5, $6)
       ON CONFLICT DO NOTHING RETURNING id`,
      [run.task, run.trigger, run.reason, run.startedBy, run.dueAt ?? null, run.reproduces ?? null],
    );
    return rows[0] ? manager.findOneByOrFail(TrainingRunRow, { id: rows[0].id }) : null;
  }

  find(id: string, tx?: Tx): Promise<TrainingRunRow | null> {
    return (tx ?? this.dataSource.manager).findOneBy(TrainingRunRow, { id });
  }

  findOpen(task: string): Promise<TrainingRunRow | null> {
    return this.dataSource.manager.findOneBy(TrainingRunRow, { task, state: OPEN });
  }

  /** Oldest first. */
  endedBefore(task: string, moment: Date): Promise<TrainingRunRow[]> {
    return this.dataSource.manager.find(TrainingRunRow, {
      where: { task, finishedAt: LessThan(moment) },
      order: { createdAt: 'ASC' },
    });
  }

  /** Newest first. */
  list(task: string, limit: number): Promise<TrainingRunRow[]> {
    return this.dataSource.manager.find(TrainingRunRow, { where: { task }, order: { createdAt: 'DESC' }, take: limit });
  }

  last(task: string): Promise<TrainingRunRow | null> {
    return this.dataSource.manager.findOne(TrainingRunRow, { where: { task }, order: { createdAt: 'DESC' } });
  }

  /** The last one that trained on what was labelled then: repetitions of others do not. */
  lastOwn(task: string): Promise<TrainingRunRow | null> {
    return this.dataSource.manager.findOne(TrainingRunRow, {
      where: { task, reproduces: IsNull() },
      order: { createdAt: 'DESC' },
    });
  }

  /** The latest due time of the task's schedule that started a run. */
  async lastDue(task: string): Promise<Date | null> {
    const run = await this.dataSource.manager.findOne(TrainingRunRow, {
      where: { task, dueAt: Not(IsNull()) },
      order: { dueAt: 'DESC' },
    });
    return run?.dueAt ?? null;
  }

  lastSucceeded(task: string): Promise<TrainingRunRow | null> {
    return this.dataSource.manager.findOne(TrainingRunRow, {
      where: { task, state: 'SUCCEEDED' },
      order: { createdAt: 'DESC' },
    });
  }

  /** False where the run is already over: a run that ended stays as it ended. */
  async updateOpen(id: string, patch: RunPatch, tx?: Tx): Promise<boolean> {
    const result = await (tx ?? this.dataSource.manager).update(TrainingRunRow, { id, state: OPEN }, patch);
    return (result.affected ?? 0) > 0;
  }

  /** Open runs whose process has not been heard of since. */
  async silentSince(moment: Date): Promise<TrainingRunRow[]> {
    return this.dataSource.manager.find(TrainingRunRow, {
      where: [
        { state: OPEN, heartbeatAt: LessThan(moment) },
        { state: OPEN, heartbeatAt: IsNull(), createdAt: LessThan(moment) },
      ],
    });
  }
}
