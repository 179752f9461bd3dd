import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryGeneratedColumn } from 'typeorm';
import { TaskRow } from './task.js';

export type VerdictValue = 'WORSE' | 'INCONCLUSIVE' | 'NOT_WORSE' | 'BETTER';
export type DecisionValue = 'APPROVED' | 'REJECTED' | 'SUPERSEDED';

@Entity('promotion')
@Index('promotion_task_idx', ['task', 'requestedAt'])
export class PromotionRow {
  @PrimaryGeneratedColumn('uuid') id: string;
  @ForeignKey(() => TaskRow)
  @Column('text')
  task: string;
  @Column('integer') version: number;
  @Column('integer', { nullable: true }) championVersion: number | null;
  @Column('text') verdict: VerdictValue;
  @Column('jsonb') report: object;
  /** Of two who are to approve it (learning/promotion.ts); the second one decides. */
  @Column('text', { nullable: true }) firstApprovalBy: string | null;
  @Column('text', { nullable: true }) decision: DecisionValue | null;
  @Column('text', { nullable: true }) decidedBy: string | null;
  @Column('text', { nullable: true }) comment: string | null;
  @Column('boolean', { default: false }) override: boolean;
  @CreateDateColumn({ type: 'timestamptz' }) requestedAt: Date;
  @Column('timestamptz', { nullable: true }) decidedAt: Date | null;
}
