import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryGeneratedColumn, Unique } from 'typeorm';
import { ItemColumns } from './item-columns.js';
import { TaskRow } from './task.js';

export type StreamItemState = 'PENDING' | 'SCORED' | 'FAILED';

/**
 * A record of the embedded stream.
 *   PENDING ──scored──▶ SCORED
 *      │ ▲└──refused──▶ FAILED (error_code says why)
 *      └─┘ a model host failed: attempts + 1, tried again after retry_at
 */
@Entity('stream_item')
@Unique(['task', 'externalId'])
@Index('stream_item_pending_idx', ['task', 'seq'], { where: `state = 'PENDING'` })
@Index('stream_item_failed_idx', ['task', 'seq'], { where: `state = 'FAILED'` })
@Index('stream_item_done_idx', ['task', 'seq'], { where: `state <> 'PENDING'` })
@Index('stream_item_task_split_group_idx', ['task', 'splitGroup'])
export class StreamItemRow extends ItemColumns {
  @PrimaryGeneratedColumn('increment', { type: 'bigint' }) seq: string;
  @ForeignKey(() => TaskRow)
  @Column('text')
  task: string;
  /** The producer's id; the item key where it gave none. */
  @Column('text') externalId: string;
  @Column('text') splitGroup: string;
  @Column('jsonb', { nullable: true }) metadata: Record<string, unknown> | null;
  @CreateDateColumn({ type: 'timestamptz' }) receivedAt: Date;
  @Column('text', { default: 'PENDING' }) state: StreamItemState;
  @Column('integer', { default: 0 }) attempts: number;
  @Column('timestamptz', { nullable: true }) retryAt: Date | null;
  @Column('text', { nullable: true }) errorCode: string | null;
  @Column('text', { nullable: true }) errorMessage: string | null;
  @Column('jsonb', { nullable: true }) prediction: object | null;
  @Column('integer', { nullable: true }) modelVersion: number | null;
  @Column('timestamptz', { nullable: true }) scoredAt: Date | null;
}
