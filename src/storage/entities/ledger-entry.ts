import { Column, Entity, Index, PrimaryGeneratedColumn } from 'typeorm';

/** Append-only: a trigger refuses UPDATE, DELETE and TRUNCATE. `hash` covers the entry and the hash before it. */
@Entity('ledger_entry')
@Index('ledger_entry_task_idx', ['task', 'seq'])
// On an expression, which the decorator cannot say.
@Index('ledger_entry_forgotten_idx', { synchronize: false })
export class LedgerEntryRow {
  @PrimaryGeneratedColumn('increment', { type: 'bigint' }) seq: string;
  /** Not a foreign key: the ledger outlives what it tells of. */
  @Column('text') task: string;
  @Column('text') kind: string;
  @Column('jsonb') body: object;
  @Column('timestamptz') at: Date;
  @Column('text') previousHash: string;
  @Column('text') hash: string;
}
