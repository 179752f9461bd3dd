import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { RunStoreRow } from './entities/run-store.js';
import type { Tx } from './transactions.js';

/** A text that was forgotten, as the ledger has it. */
export interface Erasure {
  /** Of the ledger's entry: they are committed in this order. */
  seq: string;
  task: string;
  /** Its split group. */
  digest: string;
}

/** What the ledger says was forgotten, and which data folders have erased it from their runs. */
@Injectable()
export class ErasuresRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /** Those after an entry of the ledger ('0': all), oldest first. */
  after(seq: string): Promise<Erasure[]> {
    return this.dataSource.manager.query<Erasure[]>(
      `SELECT seq, task, body ->> 'digest' AS digest FROM ledger_entry
       WHERE kind = 'forgotten' AND seq > $1 ORDER BY ledger_entry.seq`,
      [seq],
    );
  }

  /** Which of the groups' texts were ever forgotten, and when last. */
  async among(task: string, splitGroups: string[], tx: Tx): Promise<Map<string, Date>> {
    const rows = await tx.query<{ digest: string; at: Date }[]>(
      `SELECT body ->> 'digest' AS digest, max(at) AS at FROM ledger_entry
       WHERE task = $1 AND kind = 'forgotten' AND body ->> 'digest' = ANY($2) GROUP BY 1`,
      [task, splitGroups],
    );
    return new Map(rows.map(({ digest, at }) => [digest, at]));
  }

  /** The newest of them; '0' where there is none. */
  async last(): Promise<string> {
    const [row] = await this.dataSource.manager.query<{ seq: string }[]>(
      `SELECT coalesce(max(seq), 0)::text AS seq FROM ledger_entry WHERE kind = 'forgotten'`,
    );
    return row!.seq;
  }

  async report(id: string, erasedUpTo: string): Promise<void> {
    await this.dataSource.manager.upsert(RunStoreRow, { id, erasedUpTo, seenAt: new Date() }, ['id']);
  }

  /** Data folders that have not erased all of it yet, of those that were looked after since. */
  async pending(seenSince: Date): Promise<number> {
    const [row] = await this.dataSource.manager.query<{ count: number }[]>(
      `SELECT count(*)::int AS count FROM run_store
       WHERE seen_at > $1 AND erased_up_to < (SELECT coalesce(max(seq), 0) FROM ledger_entry WHERE kind = 'forgotten')`,
      [seenSince],
    );
    return row!.count;
  }
}
