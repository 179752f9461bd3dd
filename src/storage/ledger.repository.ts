import { Inject, Injectable } from '@nestjs/common';
import { DataSource, In, JsonContains, LessThan, MoreThan } from 'typeorm';
import { LedgerEntryRow } from './entities/ledger-entry.js';
import type { Tx } from './transactions.js';

export type NewLedgerEntry = Omit<LedgerEntryRow, 'seq'>;

/** Any constant does, as long as nothing else of this database locks by it. */
const LEDGER_LOCK = 7_215_903_341;

@Injectable()
export class LedgerRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /** The end of the chain, held until the transaction ends, so that two entries never follow the same one. */
  async lockLast(tx: Tx): Promise<LedgerEntryRow | null> {
    await tx.query('SELECT pg_advisory_xact_lock($1)', [LEDGER_LOCK]);
    return tx.findOne(LedgerEntryRow, { where: {}, order: { seq: 'DESC' } });
  }

  async insert(entry: NewLedgerEntry, tx: Tx): Promise<void> {
    await tx.insert(LedgerEntryRow, entry);
  }

  /** Oldest first, by pages: after the entry of that sequence number ('0' for the start). */
  page(afterSeq: string, limit: number): Promise<LedgerEntryRow[]> {
    return this.dataSource.manager.find(LedgerEntryRow, {
      where: { seq: MoreThan(afterSeq) },
      order: { seq: 'ASC' },
      take: limit,
    });
  }

  /** Newest first, by pages: before the entry of that sequence number (null for the newest). */
  listOfTask(task: string, limit: number, beforeSeq: string | null = null): Promise<LedgerEntryRow[]> {
    return this.dataSource.manager.find(LedgerEntryRow, {
      where: { task, ...(beforeSeq !== null && { seq: LessThan(beforeSeq) }) },
      order: { seq: 'DESC' },
      take: limit,
    });
  }

  /** What last made a version active or took it back; approvals count where they are of `version`: others began canaries. */
  lastSwap(task: string, version: number): Promise<LedgerEntryRow | null> {
    return this.dataSource.manager.findOne(LedgerEntryRow, {
      where: [
        { task, kind: In(['activated', 'canary-completed', 'rolled-back']) },
        { task, kind: 'promotion-approved', body: JsonContains({ version }) },
      ],
      order: { seq: 'DESC' },
    });
  }
}
