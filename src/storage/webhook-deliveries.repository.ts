import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { WebhookDeliveryRow } from './entities/webhook-delivery.js';
import type { Tx } from './transactions.js';

@Injectable()
export class WebhookDeliveriesRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  async insert(url: string, event: object, tx: Tx): Promise<void> {
    await tx.insert(WebhookDeliveryRow, { url, event });
  }

  /**
   * Those that are due, oldest first, each due again after its wait: a process that ends in the midst of it leaves them
   * to the next attempt. `waitsSeconds[n]`: after n attempts before this one; the last holds for all further ones.
   */
  async begin(limit: number, waitsSeconds: number[]): Promise<WebhookDeliveryRow[]> {
    const rows = await this.dataSource.query<Omit<WebhookDeliveryRow, 'dueAt'>[]>(
      `UPDATE webhook_delivery SET attempts = attempts + 1,
         due_at = now() + make_interval(secs => ($2::double precision[])[least(attempts + 1, cardinality($2))])
       WHERE seq IN (SELECT seq FROM webhook_delivery WHERE due_at <= now() ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED)
       RETURNING seq, url, event, attempts`,
      [limit, waitsSeconds],
    );
    return (Array.isArray(rows[0]) ? rows[0] : rows) as WebhookDeliveryRow[];
  }

  async delete(seq: string): Promise<void> {
    await this.dataSource.manager.delete(WebhookDeliveryRow, { seq });
  }
}
