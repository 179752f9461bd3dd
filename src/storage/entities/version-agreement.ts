import { Column, Entity, ForeignKey, PrimaryColumn } from 'typeorm';
import { TaskRow } from './task.js';

/** How far a version that a run made agrees with the one before it on the same unlabelled texts. */
@Entity('version_agreement')
export class VersionAgreementRow {
  @ForeignKey(() => TaskRow)
  @PrimaryColumn('text')
  task: string;
  @PrimaryColumn('integer') version: number;
  @Column('integer') before: number;
  @Column('integer') texts: number;
  @Column('double precision') kappa: number;
}
