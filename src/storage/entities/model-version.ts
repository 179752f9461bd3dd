import { Column, CreateDateColumn, Entity, ForeignKey, PrimaryColumn } from 'typeorm';
import { TaskRow } from './task.js';

export type ModelStateValue = 'CANDIDATE' | 'SHADOW' | 'CANARY' | 'ACTIVE' | 'RETIRED' | 'REJECTED';

@Entity('model_version')
export class ModelVersionRow {
  @ForeignKey(() => TaskRow)
  @PrimaryColumn('text')
  task: string;
  @PrimaryColumn('integer') version: number;
  @Column('text') state: ModelStateValue;
  /** SHA-256 of the bundle's manifest. */
  @Column('text') digest: string;
  @Column('jsonb') manifest: object;
  @Column('jsonb') report: object;
  /** The bundle's folder, relative to the data folder. */
  @Column('text') folder: string;
  @Column('integer') taskRevision: number;
  @Column('uuid', { nullable: true }) runId: string | null;
  @CreateDateColumn({ type: 'timestamptz' }) createdAt: Date;
  @Column('timestamptz', { nullable: true }) activatedAt: Date | null;
}
