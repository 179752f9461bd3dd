import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryGeneratedColumn } from 'typeorm';
import { TaskRow } from './task.js';

export type RunStateValue = 'QUEUED' | 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'CANCELLED';
export type RunTriggerValue = 'MANUAL' | 'SCHEDULE' | 'NEW_LABELS' | 'DRIFT';

/** QUEUED → RUNNING → SUCCEEDED, FAILED or CANCELLED; a task has at most one that is QUEUED or RUNNING. */
@Entity('training_run')
@Index('training_run_one_open_idx', ['task'], { unique: true, where: `state = 'QUEUED' OR state = 'RUNNING'` })
@Index('training_run_due_idx', ['task', 'dueAt'], { unique: true, where: 'due_at IS NOT NULL' })
@Index('training_run_task_idx', ['task', 'createdAt'])
export class TrainingRunRow {
  @PrimaryGeneratedColumn('uuid') id: string;
  @ForeignKey(() => TaskRow)
  @Column('text')
  task: string;
  @Column('text') trigger: RunTriggerValue;
  @Column('text', { nullable: true }) reason: string | null;
  @Column('text', { default: 'QUEUED' }) state: RunStateValue;
  /** In [0, 1]. */
  @Column('double precision', { default: 0 }) progress: number;
  @Column('text', { nullable: true }) stage: string | null;
  /** From the trainer's start to its end, as it reckons once it has measured its steps. */
  @Column('double precision', { nullable: true }) estimateSeconds: number | null;
  @Column('text', { nullable: true }) error: string | null;
  @Column('text', { nullable: true }) startedBy: string | null;
  @Column('text', { nullable: true }) folder: string | null;
  @Column('integer', { nullable: true }) producedVersion: number | null;
  @Column('text', { nullable: true }) dataDigest: string | null;
  /** Of a schedule: the due time that it is for. */
  @Column('timestamptz', { nullable: true }) dueAt: Date | null;
  /** The run whose data and settings it repeats. */
  @Column('uuid', { nullable: true }) reproduces: string | null;
  /** Of a repetition: how its bundle compares with the first one's (learning/reproduction.ts). */
  @Column('jsonb', { nullable: true }) reproduction: object | null;
  @Column('boolean', { default: false }) cancelRequested: boolean;
  @CreateDateColumn({ type: 'timestamptz' }) createdAt: Date;
  @Column('timestamptz', { nullable: true }) startedAt: Date | null;
  @Column('timestamptz', { nullable: true }) finishedAt: Date | null;
  @Column('timestamptz', { nullable: true }) heartbeatAt: Date | null;
}
