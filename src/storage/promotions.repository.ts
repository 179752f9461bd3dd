import { Inject, Injectable } from '@nestjs/common';
import { DataSource, IsNull, Not } from 'typeorm';
import { PromotionRow, type DecisionValue, type VerdictValue } from './entities/promotion.js';
import type { Tx } from './transactions.js';

export interface NewPromotion {
  task: string;
  version: number;
  championVersion: number | null;
  verdict: VerdictValue;
  report: object;
}

export interface DecisionInput {
  decision: DecisionValue;
  decidedBy: string;
  comment: string | null;
  override: boolean;
}

@Injectable()
export class PromotionsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  insert(promotion: NewPromotion, tx?: Tx): Promise<PromotionRow> {
    const manager = tx ?? this.dataSource.manager;
    return manager.save(manager.create(PromotionRow, promotion));
  }

  find(id: string, tx?: Tx): Promise<PromotionRow | null> {
    return (tx ?? this.dataSource.manager).findOneBy(PromotionRow, { id });
  }

  /** At most one of a task is open. */
  undecided(task: string, tx?: Tx): Promise<PromotionRow | null> {
    return (tx ?? this.dataSource.manager).findOneBy(PromotionRow, { task, decision: IsNull() });
  }

  /** Newest first. */
  list(task: string, limit: number): Promise<PromotionRow[]> {
    return this.dataSource.manager.find(PromotionRow, {
      where: { task },
      order: { requestedAt: 'DESC' },
      take: limit,
    });
  }

  /** The newest of a version; null where none was ever asked for. */
  ofVersion(task: string, version: number, tx?: Tx): Promise<PromotionRow | null> {
    const manager = tx ?? this.dataSource.manager;
    return manager.findOne(PromotionRow, { where: { task, version }, order: { requestedAt: 'DESC' } });
  }

  /** False where it was decided before: the first decision stands. */
  async decide(id: string, input: DecisionInput, tx: Tx): Promise<boolean> {
    const result = await tx.update(PromotionRow, { id, decision: IsNull() }, { ...input, decidedAt: new Date() });
    return (result.affected ?? 0) > 0;
  }

  /** False where it was decided or approved by somebody before. */
  async approveFirst(id: string, by: string, tx: Tx): Promise<boolean> {
    const open = { id, decision: IsNull(), firstApprovalBy: IsNull() };
    return ((await tx.update(PromotionRow, open, { firstApprovalBy: by })).affected ?? 0) > 0;
  }

  /** Closes the requests that a newer one of the same task makes pointless. */
  async supersedeOpen(task: string, exceptId: string, by: string, tx: Tx): Promise<void> {
    await tx.update(
      PromotionRow,
      { task, id: Not(exceptId), decision: IsNull() },
      { decision: 'SUPERSEDED', decidedBy: by, decidedAt: new Date() },
    );
  }
}
