import { Column, CreateDateColumn, Entity, ForeignKey, PrimaryColumn, UpdateDateColumn } from 'typeorm';

@Entity('task')
export class TaskRow {
  @PrimaryColumn('text') name: string;
  @Column('text') kind: string;
  @Column('integer') revision: number;
  /** The task definition with every default filled in (task/types.ts TaskDefinition). */
  @Column('jsonb') definition: object;
  @Column('text') definitionDigest: string;
  /** The desired state: every replica converges to it. */
  @Column('integer', { nullable: true }) activeVersion: number | null;
  /** What rollback goes back to. */
  @Column('integer', { nullable: true }) previousVersion: number | null;
  @CreateDateColumn({ type: 'timestamptz' }) createdAt: Date;
  @UpdateDateColumn({ type: 'timestamptz' }) updatedAt: Date;
}

@Entity('task_revision')
export class TaskRevisionRow {
  @ForeignKey(() => TaskRow)
  @PrimaryColumn('text')
  task: string;
  @PrimaryColumn('integer') revision: number;
  @Column('jsonb') definition: object;
  @Column('text') definitionDigest: string;
  @Column('text') appliedBy: string;
  @CreateDateColumn({ type: 'timestamptz' }) appliedAt: Date;
}
