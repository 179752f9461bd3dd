/** How outputs and offsets leave together: in one transaction, or outputs first. */
import type { Consumer, Kafka, Message, Producer, Transaction } from 'kafkajs';
import { compressionOf, PRODUCER, type KafkaSettings } from './client.js';

export interface Outgoing {
  topic: string;
  message: Message;
}

export interface Offset {
  topic: string;
  partition: number;
  /** Of the next record. */
  offset: string;
}

export interface Writer {
  /** Before anything of a batch is kept anywhere. Of a transactional writer's first: whoever wrote before no longer can. */
  begin(): Promise<void>;
  write(outgoing: Outgoing[], next: Offset): Promise<void>;
  /** Gives up what was begun. */
  close(): Promise<void>;
}

/** What one request takes stays under brokers' usual `max.message.bytes`, even where it does not compress. */
const REQUEST_BYTES = 900_000;
/** A transaction is open from the first output to the commit alone: scoring comes before. */
const TRANSACTION_TIMEOUT_MS = 60_000;

/** One for each input partition, so that taking a partition over fences whoever had it. */
export class TransactionalWriter implements Writer {
  readonly #producer: Producer;
  #transaction: Transaction | null = null;
  #connected = false;

  constructor(
    kafka: Kafka,
    private readonly settings: KafkaSettings,
    topic: string,
    partition: number,
  ) {
    this.#producer = kafka.producer({
      ...PRODUCER,
      transactionalId: `${settings.kafkaGroupId}-${topic}-${partition}`,
      transactionTimeout: TRANSACTION_TIMEOUT_MS,
      idempotent: true,
      maxInFlightRequests: 1,
    });
  }

  async begin(): Promise<void> {
    if (!this.#connected) await this.#producer.connect();
    this.#connected = true;
    if (!this.#transaction?.isActive()) this.#transaction = await this.#producer.transaction();
  }

  async write(outgoing: Outgoing[], { topic, partition, offset }: Offset): Promise<void> {
    const transaction = this.#transaction!;
    for (const topicMessages of requestsOf(outgoing)) {
      await transaction.sendBatch({ topicMessages, compression: compressionOf(this.settings) });
    }
    await transaction.sendOffsets({
      consumerGroupId: this.settings.kafkaGroupId,
      topics: [{ topic, partitions: [{ partition, offset }] }],
    });
    await transaction.commit();
  }

  async close(): Promise<void> {
    // What cannot be aborted now, the next owner's first transaction aborts.
    if (this.#transaction?.isActive()) await this.#transaction.abort().catch(() => undefined);
    await this.#producer.disconnect();
  }
}

/** For brokers without transactions: a worker that ends between the two writes its last outputs once more. */
export class AtLeastOnceWriter implements Writer {
  readonly #producer: Producer;
  #connected = false;

  constructor(
    kafka: Kafka,
    private readonly settings: KafkaSettings,
    private readonly consumer: () => Pick<Consumer, 'commitOffsets'>,
  ) {
    this.#producer = kafka.producer({ ...PRODUCER, maxInFlightRequests: 1 });
  }

  async begin(): Promise<void> {
    if (!this.#connected) await this.#producer.connect();
    this.#connected = true;
  }

  async write(outgoing: Outgoing[], next: Offset): Promise<void> {
    for (const topicMessages of requestsOf(outgoing)) {
      await this.#producer.sendBatch({ topicMessages, acks: -1, compression: compressionOf(this.settings) });
    }
    await this.consumer().commitOffsets([next]);
  }

  close(): Promise<void> {
    return this.#producer.disconnect();
  }
}

/** In order, and by topic within a request. */
export function* requestsOf(outgoing: Outgoing[]): Generator<{ topic: string; messages: Message[] }[]> {
  let request = new Map<string, Message[]>();
  let bytes = 0;
  const flush = () => [...request].map(([topic, messages]) => ({ topic, messages }));
  for (const { topic, message } of outgoing) {
    const size = (message.value?.length ?? 0) + (message.key?.length ?? 0);
    if (request.size > 0 && bytes + size > REQUEST_BYTES) {
      yield flush();
      request = new Map();
      bytes = 0;
    }
    const messages = request.get(topic);
    if (messages) messages.push(message);
    else request.set(topic, [message]);
    bytes += size;
  }
  if (request.size > 0) yield flush();
}
