import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryColumn, PrimaryGeneratedColumn } from 'typeorm';
import { TaskRow } from './task.js';

export type TrialKind = 'SHADOW' | 'CANARY';
/** STOPPED: by a person. WENT_BACK: by itself. SUPERSEDED: what it was tried against, or itself, is no longer in question. */
export type TrialOutcome = 'COMPLETED' | 'STOPPED' | 'WENT_BACK' | 'SUPERSEDED';

/** A version that is tried on live traffic beside the active one. At most one of a task is open. */
@Entity('trial')
@Index('trial_open_idx', ['task'], { where: 'ended_at IS NULL', unique: true })
@Index('trial_version_idx', ['task', 'version', 'startedAt'])
export class TrialRow {
  @PrimaryGeneratedColumn('uuid') id: string;
  @ForeignKey(() => TaskRow)
  @Column('text')
  task: string;
  @Column('integer') version: number;
  /** The version that was active when it began. */
  @Column('integer') against: number;
  @Column('text') kind: TrialKind;
  /** CANARY: of the requests. */
  @Column('double precision', { nullable: true }) percent: number | null;
  @Column('text') startedBy: string;
  @CreateDateColumn({ type: 'timestamptz' }) startedAt: Date;
  /** Null: until somebody ends it. */
  @Column('timestamptz', { nullable: true }) endsAt: Date | null;
  @Column('timestamptz', { nullable: true }) endedAt: Date | null;
  @Column('text', { nullable: true }) outcome: TrialOutcome | null;
  @Column('text', { nullable: true }) reason: string | null;
  /** Why a process that serves could not open the version, and which; null: none failed, or it was opened later. */
  @Column('text', { nullable: true }) failure: string | null;
  /** CANARY: texts that it has answered to callers and to the stream, without answers from the cache. */
  @Column('integer', { default: 0 }) answered: number;
  /** Texts that both versions have answered. */
  @Column('integer', { default: 0 }) compared: number;
  /** Of them, with other labels. */
  @Column('integer', { default: 0 }) changed: number;
  /** Texts that the version on trial failed on. */
  @Column('integer', { default: 0 }) failed: number;
  /** Texts that were not compared: there was no capacity to spare. */
  @Column('integer', { default: 0 }) missed: number;
  /** Disagreements that became questions. */
  @Column('integer', { default: 0 }) asked: number;
}

/** How many compared texts went from one answer to another. */
@Entity('trial_flip')
export class TrialFlipRow {
  @ForeignKey(() => TrialRow, { onDelete: 'CASCADE' })
  @PrimaryColumn('uuid')
  trial: string;
  @PrimaryColumn('text') champion: string;
  @PrimaryColumn('text') challenger: string;
  @Column('integer') texts: number;
}
