/** Texts into the embedded stream's table, and its records that failed. */
import { Inject, Injectable } from '@nestjs/common';
import type { DeadLetter, DeadLetters, IncomingText, TextSink } from '../../learning/stream-ports.js';
import { Notifications } from '../../storage/notifications.js';
import { StreamItemsRepository } from '../../storage/stream-items.repository.js';
import type { TaskDefinition } from '../../task/types.js';

export const INGESTED = 'fewloop_ingest';

@Injectable()
export class EmbeddedSink implements TextSink, DeadLetters {
  readonly byInput = false;

  constructor(
    @Inject(StreamItemsRepository) private readonly items: StreamItemsRepository,
    @Inject(Notifications) private readonly notifications: Notifications,
  ) {}

  async send({ name }: TaskDefinition, texts: IncomingText[]): Promise<number> {
    const rows = texts.map(({ id, item }) => ({ ...item, externalId: id, metadata: null }));
    const accepted = await this.items.insert(name, rows);
    if (accepted > 0) await this.#announce(name);
    return accepted;
  }

  pending({ name }: TaskDefinition): Promise<number> {
    return this.items.countPending(name);
  }

  async list({ name }: TaskDefinition, first: number): Promise<{ letters: DeadLetter[]; total: number }> {
    const rows = await this.items.failed(name, first);
    const total = await this.items.countFailed(name);
    const letters = rows.map((row): DeadLetter => {
      const { externalId: source, text, textPair, choices, fields, receivedAt: at } = row;
      const value = JSON.stringify({ id: source, text, textPair, choices, fields });
      return { source, code: row.errorCode ?? 'INTERNAL', message: row.errorMessage ?? '', key: null, value, at };
    });
    return { letters, total };
  }

  async replay({ name }: TaskDefinition, first: number): Promise<number> {
    const replayed = await this.items.retryFailed(name, first);
    if (replayed > 0) await this.#announce(name);
    return replayed;
  }

  drop({ name }: TaskDefinition, first: number): Promise<number> {
    return this.items.deleteFailed(name, first);
  }

  /** Should the notification be lost, the worker finds them by polling. */
  async #announce(task: string): Promise<void> {
    await this.notifications.notify(INGESTED, task);
  }
}
