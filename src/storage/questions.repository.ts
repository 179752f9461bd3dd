import { Inject, Injectable } from '@nestjs/common';
import { DataSource, type SelectQueryBuilder } from 'typeorm';
import { CandidateRow } from './entities/candidate.js';

/** A column that questions are ordered by. */
export interface QuestionOrder {
  column: 'confidence' | 'margin' | 'entropy' | 'voteEntropy' | 'jensenShannon';
  direction: 'ASC' | 'DESC';
}

/** Where a page of strategy questions begins: after the row with these values, in the order's columns. */
export interface QuestionPosition {
  values: number[];
  id: string;
}

/** `c` and the row of the alias ask the same: same text, up to case and spaces, same pair, same choices. */
const same = (other: string): string => `${other}.task = c.task AND ${other}.split_group = c.split_group
  AND ${other}.text_pair IS NOT DISTINCT FROM c.text_pair AND ${other}.choices IS NOT DISTINCT FROM c.choices`;

export const NOT_ANSWERED = `NOT EXISTS (SELECT 1 FROM example e WHERE ${same('e')})`;

/** What the review queue asks; see learning/query-strategies.ts for who decides the order. */
@Injectable()
export class QuestionsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /**
   * Questions a strategy may choose from: open rows of train groups, outside the audit slice (an audit row answered
   * because of its score would no longer be a random one), one row per near-duplicate, none whose text is labelled.
   */
  chosen(task: string, order: QuestionOrder[], after: QuestionPosition | null, limit: number): Promise<CandidateRow[]> {
    const query = this.chosenRows(task);
    // Descending columns compare negated, so that one row comparison serves every order.
    const sql = order.map(({ column, direction }) => {
      const name = `c.${column.replace(/[A-Z]/gu, (letter) => `_${letter.toLowerCase()}`)}`;
      return direction === 'ASC' ? name : `-${name}`;
    });
    if (after) {
      const values = order.map(({ direction }, i) => (direction === 'ASC' ? after.values[i]! : -after.values[i]!));
      query.andWhere(`(${[...sql, 'c.id'].join(', ')}) > (${values.map((_, i) => `:v${i}`).join(', ')}, :id)`, {
        ...Object.fromEntries(values.map((value, i) => [`v${i}`, value])),
        id: after.id,
      });
    }
    for (const { column, direction } of order) query.addOrderBy(`c.${column}`, direction);
    return query.addOrderBy('c.id').limit(limit).getMany();
  }

  /** Of what a strategy may choose from, the reservoir's part: at random. */
  sampled(task: string, limit: number): Promise<CandidateRow[]> {
    const query = this.chosenRows(task).andWhere('c.reservoirRank IS NOT NULL');
    return query.orderBy('c.reservoirRank').addOrderBy('c.id').limit(limit).getMany();
  }

  /** Questions of the audit slice, in an order that has nothing to do with their score. */
  audit(task: string, afterItemKey: string | null, limit: number): Promise<CandidateRow[]> {
    const query = this.auditRows(task);
    if (afterItemKey !== null) query.andWhere('c.item_key > :afterItemKey', { afterItemKey });
    return query.orderBy('c.itemKey').limit(limit).getMany();
  }

  countChosen(task: string): Promise<number> {
    return this.chosenRows(task).getCount();
  }

  countAudit(task: string): Promise<number> {
    return this.auditRows(task).getCount();
  }

  private chosenRows(task: string): SelectQueryBuilder<CandidateRow> {
    return this.open(task)
      .andWhere(`c.split = 'train' AND NOT c.audit`)
      .andWhere(
        `NOT EXISTS (SELECT 1 FROM candidate d WHERE ${same('d')} AND d.id <> c.id
          AND (d.state <> 'OPEN' OR d.audit OR d.item_key < c.item_key))`,
      );
  }

  private auditRows(task: string): SelectQueryBuilder<CandidateRow> {
    return this.open(task)
      .andWhere('c.audit')
      .andWhere(
        `NOT EXISTS (SELECT 1 FROM candidate d WHERE ${same('d')} AND d.id <> c.id
          AND (d.state <> 'OPEN' OR (d.audit AND d.item_key < c.item_key)))`,
      );
  }

  private open(task: string): SelectQueryBuilder<CandidateRow> {
    return this.dataSource.manager
      .createQueryBuilder(CandidateRow, 'c')
      .where(`c.task = :task AND c.state = 'OPEN'`, { task })
      .andWhere(NOT_ANSWERED);
  }
}
