/**
 * PostgreSQL's LISTEN and NOTIFY. One connection of its own listens; when it is lost it comes back by itself, and what
 * was sent meanwhile is lost, so every user polls as well.
 */
import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { Client, escapeIdentifier } from 'pg';
import { DataSource } from 'typeorm';
import { Database } from './database.js';

type Handler = (payload: string) => void;

const RECONNECT_MS = 1_000;
/** PostgreSQL refuses longer ones. */
const MAX_PAYLOAD_BYTES = 7_900;
/** Of a payload that is longer: which of how many, and the piece in base64. No other payload looks so. */
const PART = /^part (\d+)\/(\d+) ([\w+/=]+)$/;
const PIECES = new RegExp(`.{1,${MAX_PAYLOAD_BYTES - 'part 1000/1000 '.length}}`, 'g');

@Injectable()
export class Notifications implements OnApplicationBootstrap, OnApplicationShutdown {
  readonly #log = new Logger(Notifications.name);
  readonly #handlers = new Map<string, Set<Handler>>();
  #client: Client | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #listening: Promise<unknown> = Promise.resolve();
  /** Of the payload that is coming in parts. */
  #pieces: string[] = [];

  constructor(
    @Inject(Database) private readonly database: Database,
    @Inject(DataSource) private readonly dataSource: DataSource,
  ) {}

  async onApplicationBootstrap(): Promise<void> {
    await this.#connect();
  }

  async onApplicationShutdown(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#client?.end().catch(() => undefined);
  }

  /** The channel is a plain identifier of the code. Returns the way to stop. */
  on(channel: string, handler: Handler): () => void {
    const handlers = this.#handlers.get(channel) ?? new Set();
    if (handlers.size === 0) this.#listen(channel);
    handlers.add(handler);
    this.#handlers.set(channel, handlers);
    return () => handlers.delete(handler);
  }

  /** A payload of any length. */
  async notify(channel: string, payload: string): Promise<void> {
    await this.dataSource.query('SELECT pg_notify($1, part) FROM unnest($2::text[]) AS part', [
      channel,
      parts(payload),
    ]);
  }

  /** One after the other, as the client wants it. */
  #listen(channel: string): void {
    const client = this.#client;
    if (!client) return;
    const listen = () => client.query(`LISTEN ${escapeIdentifier(channel)}`);
    // A connection that is lost here is noticed by its own events.
    this.#listening = this.#listening.then(listen).catch(() => undefined);
  }

  async #connect(): Promise<void> {
    if (this.#closed) return;
    const client = new Client({ connectionString: this.database.url, application_name: 'fewloop-listen' });
    const lost = (): void => {
      client.removeAllListeners('end');
      if (this.#client === client) this.#client = undefined;
      void client.end().catch(() => undefined);
      if (this.#closed) return;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.#connect(), RECONNECT_MS).unref();
    };
    client.on('error', lost);
    client.on('end', lost);
    client.on('notification', ({ channel, payload }) => this.#deliver(channel, payload ?? ''));
    try {
      await client.connect();
      this.#client = client;
      for (const channel of this.#handlers.keys()) this.#listen(channel);
    } catch (error) {
      this.#log.warn(`cannot listen: ${(error as Error).message}`);
      lost();
    }
  }

  #deliver(channel: string, sent: string): void {
    const payload = this.#whole(sent);
    if (payload === undefined) return;
    for (const handler of this.#handlers.get(channel) ?? []) {
      try {
        handler(payload);
      } catch (error) {
        this.#log.error(error);
      }
    }
  }

  /** The parts of one payload are of one transaction, so they come in order and nothing comes between them. */
  #whole(sent: string): string | undefined {
    const part = PART.exec(sent);
    if (!part) return sent;
    const [, number, count, piece] = part;
    if (number === '1') this.#pieces = [];
    this.#pieces.push(piece!);
    return number === count ? Buffer.from(this.#pieces.join(''), 'base64').toString() : undefined;
  }
}

function parts(payload: string): string[] {
  const bytes = Buffer.from(payload);
  if (bytes.length <= MAX_PAYLOAD_BYTES) return [payload];
  const pieces = bytes.toString('base64').match(PIECES)!;
  return pieces.map((piece, i) => `part ${i + 1}/${pieces.length} ${piece}`);
}
