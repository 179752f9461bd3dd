import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { TaskRevisionRow, TaskRow } from './entities/task.js';
import type { Tx } from './transactions.js';

export interface NewRevision {
  name: string;
  kind: string;
  revision: number;
  definition: object;
  definitionDigest: string;
  appliedBy: string;
}

@Injectable()
export class TasksRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  find(name: string, tx?: Tx): Promise<TaskRow | null> {
    return (tx ?? this.dataSource.manager).findOneBy(TaskRow, { name });
  }

  /** Holds the task's row until the transaction ends: whatever decides by its versions or revision goes one at a time. */
  lock(name: string, tx: Tx): Promise<TaskRow | null> {
    return tx.findOne(TaskRow, { where: { name }, lock: { mode: 'pessimistic_write' } });
  }

  /** One maker of a task's versions at a time, until the transaction ends; readers and writers of its row go on. */
  async lockVersions(name: string, tx: Tx): Promise<void> {
    await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended('versions:' || $1, 0))`, [name]);
  }

  list(): Promise<TaskRow[]> {
    return this.dataSource.manager.find(TaskRow, { order: { name: 'ASC' } });
  }

  /** Creates the task with its first revision, or makes a further revision the current one. */
  async saveRevision(revision: NewRevision, tx: Tx): Promise<TaskRow> {
    const { name, appliedBy, ...current } = revision;
    const known = await this.lock(name, tx);
    if (known) await tx.update(TaskRow, { name }, { ...current, updatedAt: new Date() });
    else await tx.insert(TaskRow, { name, ...current });
    const { kind: _kind, ...stored } = current;
    await tx.insert(TaskRevisionRow, { task: name, ...stored, appliedBy });
    return tx.findOneByOrFail(TaskRow, { name });
  }

  /** When the revision was applied. */
  async appliedAt(name: string, revision: number): Promise<Date | null> {
    const row = await this.dataSource.manager.findOneBy(TaskRevisionRow, { task: name, revision });
    return row?.appliedAt ?? null;
  }

  /** The desired state; the version active until now becomes the one that rollback goes back to. */
  async setActive(name: string, version: number, tx?: Tx): Promise<void> {
    await (tx ?? this.dataSource.manager).query(
      `UPDATE task SET previous_version = active_version, active_version = $2, updated_at = now()
       WHERE name = $1 AND active_version IS DISTINCT FROM $2`,
      [name, version],
    );
  }
}
