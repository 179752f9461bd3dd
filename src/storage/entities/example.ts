import {
  Column,
  CreateDateColumn,
  Entity,
  ForeignKey,
  Index,
  PrimaryGeneratedColumn,
  Unique,
  UpdateDateColumn,
} from 'typeorm';
import { ItemColumns, type SplitValue } from './item-columns.js';
import { TaskRow } from './task.js';

/** IMPORT: by a file or an app. ANSWER: to a question a strategy chose. AUDIT: to a question drawn at random. */
export type ExampleOrigin = 'IMPORT' | 'ANSWER' | 'AUDIT';

@Entity('example')
@Unique(['task', 'itemKey'])
@Index('example_task_split_group_idx', ['task', 'splitGroup'])
@Index('example_created_idx', ['task', 'split', 'createdAt'])
export class ExampleRow extends ItemColumns {
  @PrimaryGeneratedColumn('uuid') id: string;
  @ForeignKey(() => TaskRow)
  @Column('text')
  task: string;
  @Column('text') splitGroup: string;
  /** Of the question that it answers; null: imported. */
  @Column('text', { nullable: true }) nearGroup: string | null;
  @Column('text', { array: true }) labels: string[];
  @Column('text') split: SplitValue;
  @Column('text') origin: ExampleOrigin;
  @Column('text', { nullable: true }) answeredBy: string | null;
  /** Query strategy that chose the question, where that is known; null for imports. */
  @Column('text', { nullable: true }) strategy: string | null;
  /** Since when its source is no longer trusted: it is kept, and takes part in no run, gate or figure. */
  @Column('timestamptz', { nullable: true }) revokedAt: Date | null;
  @CreateDateColumn({ type: 'timestamptz' }) createdAt: Date;
  @UpdateDateColumn({ type: 'timestamptz' }) updatedAt: Date;
}
