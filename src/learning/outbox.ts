/**
 * Lifecycle events on their way out. An event is kept in the transaction that made it true and leaves afterwards, at
 * least once, in order. Without Kafka there is nobody to send them to, and none is kept.
 */
import { Inject, Injectable } from '@nestjs/common';
import { Config } from '../config/config.js';
import { Notifications } from '../storage/notifications.js';
import { OutboxRepository } from '../storage/outbox.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';

export type LifecycleType = 'run.finished' | 'promotion.requested' | 'model.activated' | 'model.rolled-back';

export interface LifecycleEvent {
  id: string;
  type: LifecycleType;
  task: string;
  at: Date;
  data: object;
}

const CHANNEL = 'fewloop_outbox';
const BATCH = 100;

@Injectable()
export class Outbox {
  constructor(
    @Inject(Config) private readonly config: Pick<Config, 'kafkaBrokers'>,
    @Inject(OutboxRepository) private readonly events: OutboxRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(Notifications) private readonly notifications: Notifications,
  ) {}

  async add(type: LifecycleType, task: string, data: object, tx: Tx): Promise<void> {
    if (this.config.kafkaBrokers === '') return;
    await this.events.insert({ type, task, data }, tx);
    // Delivered when the transaction commits; the publisher polls as well.
    await tx.query('SELECT pg_notify($1, $2)', [CHANNEL, task]);
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
