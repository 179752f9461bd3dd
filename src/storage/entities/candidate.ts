import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryGeneratedColumn, Unique } from 'typeorm';
import { ItemColumns, type SplitValue } from './item-columns.js';
import { TaskRow } from './task.js';

export type CandidateState = 'OPEN' | 'LABELLED' | 'SKIPPED';

/**
 * An unlabelled text with its prediction. OPEN → LABELLED or SKIPPED; nothing leads back.
 * Rows of the audit slice, of the reservoir and answered ones are never evicted.
 */
@Entity('candidate')
@Unique(['task', 'itemKey'])
@Index('candidate_task_split_group_idx', ['task', 'splitGroup'])
@Index('candidate_margin_idx', ['task', 'margin', 'confidence', 'id'], { where: `state = 'OPEN'` })
@Index('candidate_confidence_idx', ['task', 'confidence', 'margin', 'id'], { where: `state = 'OPEN'` })
@Index('candidate_reservoir_idx', ['task', 'reservoirRank'], { where: 'reservoir_rank IS NOT NULL' })
@Index('candidate_audit_idx', ['task', 'itemKey'], { where: 'audit' })
@Index('candidate_version_idx', ['task', 'modelVersion'], { where: `state = 'OPEN'` })
export class CandidateRow extends ItemColumns {
  @PrimaryGeneratedColumn('uuid') id: string;
  @ForeignKey(() => TaskRow)
  @Column('text')
  task: string;
  @Column('text') splitGroup: string;
  @Column('text') split: SplitValue;
  /** inference/types.ts Prediction, by `modelVersion`. */
  @Column('jsonb') prediction: object;
  @Column('integer') modelVersion: number;
  /** Audit slice: the prediction as it was when the text was served last; scoring anew leaves it. */
  @Column('jsonb', { nullable: true }) servedPrediction: object | null;
  @Column('double precision') confidence: number;
  @Column('double precision') margin: number;
  @Column('double precision') entropy: number;
  @Column('double precision') voteEntropy: number;
  @Column('double precision', { default: 0 }) jensenShannon: number;
  @Column('integer') dissenting: number;
  @Column('text') route: 'ACCEPT' | 'REVIEW';
  /** Drawn at random to be answered, whatever its score. */
  @Column('boolean') audit: boolean;
  /** In [0, 1), the smallest ones of a task's traffic are its reservoir; null: not in it. */
  @Column('double precision', { nullable: true }) reservoirRank: number | null;
  @Column('text', { default: 'OPEN' }) state: CandidateState;
  @Column('text', { array: true, nullable: true }) labels: string[] | null;
  @Column('text', { nullable: true }) skipReason: string | null;
  @Column('text', { nullable: true }) answeredBy: string | null;
  @Column('timestamptz', { nullable: true }) answeredAt: Date | null;
  @CreateDateColumn({ type: 'timestamptz' }) receivedAt: Date;
}
