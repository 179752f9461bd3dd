import { Inject, Injectable } from '@nestjs/common';
import { DataSource, In } from 'typeorm';
import { OutboxEventRow } from './entities/outbox-event.js';
import type { Tx } from './transactions.js';

@Injectable()
export class OutboxRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  async insert(event: Pick<OutboxEventRow, 'type' | 'task' | 'data'>, tx: Tx): Promise<void> {
    await tx.insert(OutboxEventRow, event);
  }

  /** The oldest, held until the transaction ends. One publisher at a time, so that they leave in order. */
  async claim(limit: number, tx: Tx): Promise<OutboxEventRow[]> {
    const [row] = await tx.query<{ mine: boolean }[]>(
      `SELECT pg_try_advisory_xact_lock(hashtextextended('outbox', 0)) AS mine`,
    );
    return row?.mine ? tx.find(OutboxEventRow, { order: { seq: 'ASC' }, take: limit }) : [];
  }

  async delete(seqs: string[], tx: Tx): Promise<void> {
    await tx.delete(OutboxEventRow, { seq: In(seqs) });
  }

  count(): Promise<number> {
    return this.dataSource.manager.count(OutboxEventRow);
  }
}
