import { Column, CreateDateColumn, Entity, ForeignKey, Generated, Index, PrimaryGeneratedColumn } from 'typeorm';
import { CandidateRow, type CandidateState, type CheckReason } from './candidate.js';
import type { ExampleOrigin } from './example.js';
import { TaskRow } from './task.js';

/** Why a question was asked. */
export type QuestionReason = 'STRATEGY' | 'AUDIT' | CheckReason;

/** What an answer found, so that it can be taken back; its labels by the names of that day. */
export interface BeforeAnswer {
  candidate: {
    state: CandidateState;
    labels: string[] | null;
    skipReason: string | null;
    answeredBy: string | null;
    /** ISO 8601. */
    answeredAt: string | null;
    reason: CheckReason | null;
    priority: number;
  };
  /** Of the same item; null: there was none. */
  example: {
    labels: string[];
    origin: ExampleOrigin;
    answeredBy: string | null;
    strategy?: string | null;
    /** ISO 8601. */
    revokedAt?: string | null;
    /** When it was given, ISO 8601. */
    givenAt?: string;
  } | null;
}

/** One labeler's word on one question. Rows are added, and marked when they are taken back; they do not change. */
@Entity('answer')
@Index('answer_candidate_idx', ['candidate'])
@Index('answer_by_idx', ['task', 'answeredBy', 'seq'])
export class AnswerRow {
  @PrimaryGeneratedColumn('uuid') id: string;
  /** Order of answers; times can be equal. */
  @Generated('increment')
  @Column('bigint')
  seq: string;
  @ForeignKey(() => TaskRow)
  @Column('text')
  task: string;
  @ForeignKey(() => CandidateRow, { onDelete: 'CASCADE' })
  @Column('uuid')
  candidate: string;
  @Column('text') answeredBy: string;
  @Column('text') asked: QuestionReason;
  /** By which the question was chosen, where that is known. */
  @Column('text', { nullable: true }) strategy: string | null;
  /** Null: skipped. */
  @Column('text', { array: true, nullable: true }) labels: string[] | null;
  @Column('text', { nullable: true }) skipReason: string | null;
  @Column('jsonb') before: BeforeAnswer;
  @CreateDateColumn({ type: 'timestamptz' }) answeredAt: Date;
  @Column('timestamptz', { nullable: true }) undoneAt: Date | null;
}
