import { Inject, Injectable } from '@nestjs/common';
import { DataSource, MoreThan } from 'typeorm';
import { CandidateRow } from './entities/candidate.js';
import { DriftCheckRow } from './entities/drift-check.js';
import type { Tx } from './transactions.js';

@Injectable()
export class DriftRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /** False where another process is at it. Held until the transaction ends. */
  async tryLock(task: string, tx: Tx): Promise<boolean> {
    const [row] = await tx.query<{ locked: boolean }[]>(
      `SELECT pg_try_advisory_xact_lock(hashtextextended('drift:' || $1, 0)) AS locked`,
      [task],
    );
    return row!.locked;
  }

  /** The reservoir's texts that came first after a moment, in the order of their arrival: labelled ones included. */
  arrivedSince(task: string, moment: Date): Promise<CandidateRow[]> {
    return this.dataSource.manager
      .createQueryBuilder(CandidateRow, 'c')
      .where({ task, receivedAt: MoreThan(moment) })
      .andWhere('c.reservoir_rank IS NOT NULL')
      .orderBy('c.receivedAt')
      .addOrderBy('c.id')
      .getMany();
  }

  last(task: string, tx?: Tx): Promise<DriftCheckRow | null> {
    return (tx ?? this.dataSource.manager).findOne(DriftCheckRow, { where: { task }, order: { checkedAt: 'DESC' } });
  }

  async insert(check: Omit<DriftCheckRow, 'answered'>, tx: Tx): Promise<void> {
    await tx.insert(DriftCheckRow, check);
  }

  async markAnswered({ task, checkedAt }: Pick<DriftCheckRow, 'task' | 'checkedAt'>): Promise<void> {
    await this.dataSource.manager.update(DriftCheckRow, { task, checkedAt }, { answered: true });
  }
}
