import { Column, Entity, ForeignKey, PrimaryColumn } from 'typeorm';
import { TaskRow } from './task.js';

/** One comparison of a task's present traffic with that at the promotion of its active version. */
@Entity('drift_check')
export class DriftCheckRow {
  @ForeignKey(() => TaskRow)
  @PrimaryColumn('text')
  task: string;
  @PrimaryColumn('timestamptz') checkedAt: Date;
  @Column('integer') version: number;
  /** Texts of each window. */
  @Column('integer') reference: number;
  @Column('integer') present: number;
  /** Below which p a statistic counts. */
  @Column('double precision') level: number;
  /** learning/drift.ts DriftStatistic, one each of labels, confidence, embeddings. */
  @Column('jsonb') statistics: object;
  @Column('boolean') alarm: boolean;
  /** A run began because of it, or could not. */
  @Column('boolean', { default: false }) answered: boolean;
}
