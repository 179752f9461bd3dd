import { Inject, Injectable } from '@nestjs/common';
import { DataSource, type SelectQueryBuilder } from 'typeorm';
import { CandidateRow } from './entities/candidate.js';
import { NOT_ANSWERED } from './questions.repository.js';

/**
 * The only way from the pool to training and priors. No row of it belongs to a dev or test group, by its own split or
 * by that of any example of its group.
 */
@Injectable()
export class TrainingTextsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /** The reservoir first, then other open rows in an order that says nothing about them; without labelled texts. */
  unlabelledForTraining(task: string, limit: number): Promise<CandidateRow[]> {
    return this.trainRows(task)
      .andWhere(`c.state <> 'LABELLED' AND ${NOT_ANSWERED}`)
      .orderBy('c.reservoirRank', 'ASC', 'NULLS LAST')
      .addOrderBy('c.itemKey')
      .limit(limit)
      .getMany();
  }

  /** The uniform sample of the task's traffic, labelled ones included: what priors are matched on. */
  reservoir(task: string, limit: number): Promise<CandidateRow[]> {
    return this.trainRows(task)
      .andWhere('c.reservoir_rank IS NOT NULL')
      .orderBy('c.reservoirRank')
      .addOrderBy('c.itemKey')
      .limit(limit)
      .getMany();
  }

  reservoirSize(task: string): Promise<number> {
    return this.trainRows(task).andWhere('c.reservoir_rank IS NOT NULL').getCount();
  }

  private trainRows(task: string): SelectQueryBuilder<CandidateRow> {
    return this.dataSource.manager
      .createQueryBuilder(CandidateRow, 'c')
      .where(`c.task = :task AND c.split = 'train'`, { task })
      .andWhere(
        `NOT EXISTS (SELECT 1 FROM example e
          WHERE e.task = c.task AND e.split_group = c.split_group AND e.split <> 'train')`,
      );
  }
}
