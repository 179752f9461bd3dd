import { Injectable } from '@nestjs/common';
import { In } from 'typeorm';
import { OutboxEventRow } from './entities/outbox-event.js';
import type { Tx } from './transactions.js';

/** Longer than a broker that is away is tried. */
const LONGEST_IDLE_MS = 60_000;

@Injectable()
export class OutboxRepository {
  async insert(event: Omit<OutboxEventRow, 'seq'>, tx: Tx): Promise<void> {
    await tx.insert(OutboxEventRow, event);
  }

  /** The oldest, held until the transaction ends. One publisher at a time, so that they leave in order. */
  async claim(limit: number, tx: Tx): Promise<OutboxEventRow[]> {
    // A publisher that is stopped in the midst of it must not keep the others from publishing.
    await tx.query(`SET LOCAL idle_in_transaction_session_timeout = ${LONGEST_IDLE_MS}`);
    const [row] = await tx.query<{ mine: boolean }[]>(
      `SELECT pg_try_advisory_xact_lock(hashtextextended('outbox', 0)) AS mine`,
    );
    return row?.mine ? tx.find(OutboxEventRow, { order: { seq: 'ASC' }, take: limit }) : [];
  }

  async delete(seqs: string[], tx: Tx): Promise<void> {
    await tx.delete(OutboxEventRow, { seq: In(seqs) });
  }
}
