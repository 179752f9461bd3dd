/** How outputs and offsets leave together: in one transaction, or outputs first. */
import type { Consumer, Kafka, Message, Producer, TopicMessages, Transaction } from 'kafkajs';
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
  /** In requests of so many bytes; a larger message goes alone. Throws RequestTooLarge. */
  write(outgoing: Outgoing[], next: Offset, requestBytes: number): Promise<void>;
  /** Gives up what was begun. */
  close(): Promise<void>;
}

/** Of a request, at most: under brokers' usual `max.message.bytes`, even where it does not compress. */
export const REQUEST_BYTES = 900_000;
const TOO_LARGE = new Set(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE']);

/**
 * A request that a topic does not take (`max.message.bytes`). Its other parts may have been taken: a producer that was
 * told so counts on from where it does not stand, and must not be used again.
 */
export class RequestTooLarge extends Error {
  constructor(
    readonly messages: Outgoing[],
    cause: unknown,
  ) {
    super(`a request of ${messages.length} messages is larger than a topic takes`, { cause });
  }

  get bytes(): number {
    return this.messages.reduce((sum, message) => sum + sizeOf(message), 0);
  }
}
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

  async write(outgoing: Outgoing[], { topic, partition, offset }: Offset, requestBytes: number): Promise<void> {
    const transaction = this.#transaction!;
    const compression = compressionOf(this.settings);
    await sendAll(outgoing, requestBytes, (topicMessages) => transaction.sendBatch({ topicMessages, compression }));
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

  async write(outgoing: Outgoing[], next: Offset, requestBytes: number): Promise<void> {
    const compression = compressionOf(this.settings);
    await sendAll(outgoing, requestBytes, (topicMessages) =>
      this.#producer.sendBatch({ topicMessages, acks: -1, compression }),
    );
    await this.consumer().commitOffsets([next]);
  }

  close(): Promise<void> {
    return this.#producer.disconnect();
  }
}

/** In order, one request after the other. Throws RequestTooLarge, and whatever else `send` throws. */
export async function sendAll(
  outgoing: Outgoing[],
  requestBytes: number,
  send: (topicMessages: TopicMessages[]) => Promise<unknown>,
): Promise<void> {
  for (const request of requestsOf(outgoing, requestBytes)) {
    try {
      await send(byTopic(request));
    } catch (error) {
      throw TOO_LARGE.has((error as { type?: string }).type ?? '') ? new RequestTooLarge(request, error) : error;
    }
  }
}

/** Slices of about so many bytes; what is larger is one by itself. */
export function* requestsOf(outgoing: Outgoing[], requestBytes: number): Generator<Outgoing[]> {
  let request: Outgoing[] = [];
  let bytes = 0;
  for (const message of outgoing) {
    const size = sizeOf(message);
    if (request.length > 0 && bytes + size > requestBytes) {
      yield request;
      request = [];
      bytes = 0;
    }
    request.push(message);
    bytes += size;
  }
  if (request.length > 0) yield request;
}

function byTopic(request: Outgoing[]): TopicMessages[] {
  const topics = Map.groupBy(request, ({ topic }) => topic);
  return [...topics].map(([topic, own]) => ({ topic, messages: own.map(({ message }) => message) }));
}

function sizeOf({ message }: Outgoing): number {
  return (message.value?.length ?? 0) + (message.key?.length ?? 0);
}
