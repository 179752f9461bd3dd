import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryGeneratedColumn, Unique } from 'typeorm';
import { ItemColumns, type SplitValue } from './item-columns.js';
import { TaskRow } from './task.js';

export type CandidateState = 'OPEN' | 'LABELLED' | 'SKIPPED';

/**
 * Why it is asked, whatever its score: again, of a second labeler, of a third where two disagree, because its label is in
 * doubt; or for the first time, because a version on trial answers it otherwise than the active one.
 */
export type CheckReason = 'SECOND_ANSWER' | 'ADJUDICATION' | 'LABEL_ISSUE' | 'CHALLENGER';

/** Characters of a predicted label that its column keeps: indexes have it, and a choice may be longer than they take. */
export const PREDICTED_LABEL_LENGTH = 256;

/**
 * A text with its prediction. OPEN → LABELLED or SKIPPED; back to OPEN where the answer is undone, or contradicted and
 * to be adjudicated. Rows of the audit slice, of the reservoir, to be checked and answered ones are never evicted.
 */
@Entity('candidate')
@Unique(['task', 'itemKey'])
@Index('candidate_task_split_group_idx', ['task', 'splitGroup'])
@Index('candidate_reservoir_idx', ['task', 'reservoirRank'], { where: 'reservoir_rank IS NOT NULL' })
@Index('candidate_audit_idx', ['task', 'itemKey'], { where: 'audit' })
@Index('candidate_version_idx', ['task', 'modelVersion'], { where: `state = 'OPEN'` })
@Index('candidate_near_group_idx', ['task', 'nearGroup'])
@Index('candidate_served_idx', ['servedBy'], { where: 'served_by IS NOT NULL' })
@Index('candidate_lease_idx', ['task', 'leasedUntil'], { where: 'leased_until IS NOT NULL' })
@Index('candidate_answered_idx', ['task', 'state'], { where: `state <> 'OPEN'` })
@Index('candidate_asked_idx', ['task'], { where: `state <> 'OPEN' AND served_by IS NULL` })
// The review queue's, and what the decorator cannot say (descending columns, GIN), are the migrations'.
@Index('candidate_margin_idx', { synchronize: false })
@Index('candidate_label_idx', { synchronize: false })
@Index('candidate_confidence_idx', { synchronize: false })
@Index('candidate_bands_idx', { synchronize: false })
@Index('candidate_reason_idx', { synchronize: false })
@Index('candidate_entropy_idx', { synchronize: false })
@Index('candidate_votes_idx', { synchronize: false })
@Index('candidate_bald_idx', { synchronize: false })
export class CandidateRow extends ItemColumns {
  @PrimaryGeneratedColumn('uuid') id: string;
  @ForeignKey(() => TaskRow)
  @Column('text')
  task: string;
  @Column('text') splitGroup: string;
  /** The same for texts that are nearly the same (learning/near-duplicates.ts). */
  @Column('text') nearGroup: string;
  /** By which its near-duplicates are found; null: it leads no group. */
  @Column('integer', { array: true, nullable: true }) bands: number[] | null;
  @Column('text') split: SplitValue;
  /** inference/types.ts Prediction, by `modelVersion`. */
  @Column('jsonb') prediction: object;
  @Column('integer') modelVersion: number;
  /** Audit slice: the prediction as it was when the text was served last; scoring anew leaves it. */
  @Column('jsonb', { nullable: true }) servedPrediction: object | null;
  /** The beginning of it (PREDICTED_LABEL_LENGTH); the prediction has all of it. */
  @Column('text', { nullable: true }) predictedLabel: string | null;
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
  /** The candidate whose answer closed this near-duplicate of it. */
  @Column('uuid', { nullable: true }) servedBy: string | null;
  /** Who is answering it, and until when others are not asked. */
  @Column('text', { nullable: true }) leasedBy: string | null;
  @Column('timestamptz', { nullable: true }) leasedUntil: Date | null;
  /** By which query strategy it was leased. */
  @Column('text', { nullable: true }) leasedStrategy: string | null;
  /** Null: it is asked by its score or for the audit. */
  @Column('text', { nullable: true }) reason: CheckReason | null;
  /** Of questions with a reason, the highest come first; 0 without one. */
  @Column('double precision', { default: 0 }) priority: number;
  @CreateDateColumn({ type: 'timestamptz' }) receivedAt: Date;
}
