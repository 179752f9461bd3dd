import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { ModelVersionRow, type ModelStateValue } from './entities/model-version.js';
import type { Tx } from './transactions.js';

export type NewVersion = Omit<ModelVersionRow, 'createdAt' | 'activatedAt'>;

@Injectable()
export class VersionsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  find(task: string, version: number, tx?: Tx): Promise<ModelVersionRow | null> {
    return (tx ?? this.dataSource.manager).findOneBy(ModelVersionRow, { task, version });
  }

  /** Newest first. */
  list(task: string, limit: number): Promise<ModelVersionRow[]> {
    return this.dataSource.manager.find(ModelVersionRow, { where: { task }, order: { version: 'DESC' }, take: limit });
  }

  /** Of all tasks, without manifests and reports; what serves or served last comes first. */
  names(): Promise<Pick<ModelVersionRow, 'task' | 'version' | 'digest' | 'folder'>[]> {
    return this.dataSource.manager.find(ModelVersionRow, {
      select: { task: true, version: true, digest: true, folder: true },
      order: { activatedAt: { direction: 'DESC', nulls: 'LAST' }, task: 'ASC', version: 'ASC' },
    });
  }

  /** One registration of a task's bundles at a time, until the transaction ends. */
  async lockRegistration(task: string, tx: Tx): Promise<void> {
    await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended('register:' || $1, 0))`, [task]);
  }

  /** One more than the highest. A number to register under is asked for by whoever holds `TasksRepository.lockVersions`. */
  async next(task: string, tx?: Tx): Promise<number> {
    const [row] = await (tx ?? this.dataSource.manager).query<{ next: number }[]>(
      `SELECT coalesce(max(version), 0) + 1 AS next FROM model_version WHERE task = $1`,
      [task],
    );
    return row!.next;
  }

  async insert(version: NewVersion, tx?: Tx): Promise<ModelVersionRow> {
    const manager = tx ?? this.dataSource.manager;
    await manager.insert(ModelVersionRow, version);
    return manager.findOneByOrFail(ModelVersionRow, { task: version.task, version: version.version });
  }

  async setState(task: string, version: number, state: ModelStateValue, tx?: Tx): Promise<void> {
    await (tx ?? this.dataSource.manager).update(ModelVersionRow, { task, version }, { state });
  }

  /** Makes one version ACTIVE and retires the one that was. */
  async markActive(task: string, version: number, tx: Tx): Promise<void> {
    await tx.query(
      `UPDATE model_version SET state = 'RETIRED' WHERE task = $1 AND state = 'ACTIVE' AND version <> $2`,
      [task, version],
    );
    await tx.update(ModelVersionRow, { task, version }, { state: 'ACTIVE', activatedAt: new Date() });
  }
}
