/** Lifecycle events out of the outbox, as CloudEvents 1.0 in JSON, at least once and in order. */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import type { Kafka, Message, Producer } from 'kafkajs';
import { Config } from '../../config/config.js';
import { CLOUD_EVENT_TYPE, cloudEventOf, type LifecycleEvent } from '../../learning/cloud-event.js';
import { Outbox } from '../../learning/outbox.js';
import { EVENTS_TOPIC } from '../../task/topics.js';
import { compressionOf, connectKafka, PRODUCER } from './client.js';

const POLL_MS = 2_000;

@Injectable()
export class EventPublisher implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #log = new Logger(EventPublisher.name);
  readonly #kafka: Kafka;
  #producer: Producer | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #failing = false;
  /** Publishing, one at a time. */
  #last: Promise<void> = Promise.resolve();

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(Outbox) private readonly outbox: Pick<Outbox, 'publish' | 'onAdded'>,
  ) {
    this.#kafka = connectKafka(config);
  }

  onApplicationBootstrap(): void {
    if (!['all', 'stream'].includes(this.config.role)) return;
    this.outbox.onAdded(() => this.#soon());
    this.#timer = setInterval(() => this.#soon(), POLL_MS).unref();
    this.#soon();
  }

  async beforeApplicationShutdown(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#last;
    await this.#producer?.disconnect();
  }

  #soon(): void {
    this.#last = this.#last.then(() => this.#publish());
  }

  async #publish(): Promise<void> {
    try {
      while (!this.#stopped && (await this.outbox.publish((events) => this.#send(events))));
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) this.#log.warn(`events wait: ${(error as Error).message}`);
      this.#failing = true;
      await this.#producer?.disconnect().catch(() => undefined);
      this.#producer = undefined;
    }
  }

  async #send(events: LifecycleEvent[]): Promise<void> {
    if (!this.#producer) {
      const producer = this.#kafka.producer({ ...PRODUCER, idempotent: true });
      await producer.connect();
      this.#producer = producer;
    }
    const messages = events.map(messageOf);
    await this.#producer.send({ topic: EVENTS_TOPIC, messages, acks: -1, compression: compressionOf(this.config) });
  }
}

/** Structured mode: the event is the value. The key keeps a task's events in order. */
function messageOf(event: LifecycleEvent): Message {
  const headers = { 'content-type': CLOUD_EVENT_TYPE };
  return { key: event.task, value: JSON.stringify(cloudEventOf(event)), headers };
}
