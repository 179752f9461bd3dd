/**
 * Lifecycle events on their way out. An event is kept in the transaction that made it true and leaves afterwards, at
 * least once: to Kafka in order, to webhooks each by itself (webhooks.ts). Where there is neither, none is kept.
 */
import { Inject, Injectable } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { Config } from '../config/config.js';
import { Notifications } from '../storage/notifications.js';
import { OutboxRepository } from '../storage/outbox.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import { WebhookDeliveriesRepository } from '../storage/webhook-deliveries.repository.js';
import { cloudEventOf, type LifecycleEvent, type LifecycleType } from './cloud-event.js';

const CHANNEL = 'fewloop_outbox';
export const WEBHOOK_CHANNEL = 'fewloop_webhooks';
const BATCH = 100;

@Injectable()
export class Outbox {
  constructor(
    @Inject(Config) private readonly config: Pick<Config, 'kafkaBrokers' | 'webhookUrls'>,
    @Inject(OutboxRepository) private readonly events: OutboxRepository,
    @Inject(WebhookDeliveriesRepository) private readonly deliveries: WebhookDeliveriesRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(Notifications) private readonly notifications: Notifications,
  ) {}

  async add(type: LifecycleType, task: string, data: object, tx: Tx): Promise<void> {
    const event = { id: randomUUID(), type, task, at: new Date(), data };
    // Notices are delivered when the transaction commits; who waits for them polls as well.
    if (this.config.kafkaBrokers !== '') {
      await this.events.insert(event, tx);
      await tx.query('SELECT pg_notify($1, $2)', [CHANNEL, task]);
    }
    const urls = this.config.webhookUrls === '' ? [] : this.config.webhookUrls.split(',');
    for (const url of urls) await this.deliveries.insert(url.trim(), cloudEventOf(event), tx);
    if (urls.length > 0) await tx.query('SELECT pg_notify($1, $2)', [WEBHOOK_CHANNEL, task]);
  }

  /** Sends the oldest and forgets them once `send` resolves. False where there was none, or another process sends. */
  publish(send: (events: LifecycleEvent[]) => Promise<void>): Promise<boolean> {
    return this.transactions.run(async (tx) => {
      const rows = await this.events.claim(BATCH, tx);
      if (rows.length === 0) return false;
      await send(rows.map(({ id, type, task, at, data }) => ({ id, type: type as LifecycleType, task, at, data })));
      await this.events.delete(
        rows.map(({ seq }) => seq),
        tx,
      );
      return true;
    });
  }

  /** Calls when there may be one to send. Returns the way to stop. */
  onAdded(handler: () => void): () => void {
    return this.notifications.on(CHANNEL, handler);
  }
}
