import { Column, Entity, PrimaryColumn } from 'typeorm';

/** A data folder in which runs are kept; its id lies in it. */
@Entity('run_store')
export class RunStoreRow {
  @PrimaryColumn('uuid') id: string;
  /** Entry of the ledger up to which what was forgotten is erased from its runs. */
  @Column('bigint') erasedUpTo: string;
  /** When a process looked after it last. */
  @Column('timestamptz') seenAt: Date;
}
