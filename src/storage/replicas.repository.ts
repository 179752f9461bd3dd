import { Inject, Injectable } from '@nestjs/common';
import { DataSource, LessThan } from 'typeorm';
import { ReplicaRow, type ReplicaFailure } from './entities/replica.js';

@Injectable()
export class ReplicasRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  async report(
    id: string,
    activeVersions: Record<string, number>,
    failures: Record<string, ReplicaFailure>,
  ): Promise<void> {
    await this.dataSource.manager.upsert(ReplicaRow, { id, activeVersions, failures, seenAt: new Date() }, ['id']);
  }

  list(): Promise<ReplicaRow[]> {
    return this.dataSource.manager.find(ReplicaRow, { order: { id: 'ASC' } });
  }

  async remove(id: string): Promise<void> {
    await this.dataSource.manager.delete(ReplicaRow, { id });
  }

  /** Forgets processes that ended without a word. */
  async removeSilentSince(moment: Date): Promise<void> {
    await this.dataSource.manager.delete(ReplicaRow, { seenAt: LessThan(moment) });
  }
}
