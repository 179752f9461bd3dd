import { Column, Entity, PrimaryColumn } from 'typeorm';

/** A version that a process cannot serve now; what it served before, it still does. */
export interface ReplicaFailure {
  version: number;
  message: string;
}

/** What a process serves, as it last reported. */
@Entity('replica')
export class ReplicaRow {
  @PrimaryColumn('text') id: string;
  /** Task name → version. */
  @Column('jsonb') activeVersions: Record<string, number>;
  /** Task name → why its active version is not served here. */
  @Column('jsonb', { default: {} }) failures: Record<string, ReplicaFailure>;
  @Column('timestamptz') seenAt: Date;
}
