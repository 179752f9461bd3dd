import { Column, Entity, PrimaryColumn } from 'typeorm';

/** What a process serves, as it last reported. */
@Entity('replica')
export class ReplicaRow {
  @PrimaryColumn('text') id: string;
  /** Task name → version. */
  @Column('jsonb') activeVersions: Record<string, number>;
  @Column('timestamptz') seenAt: Date;
}
