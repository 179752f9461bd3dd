/** Texts into a task's input topic, and the dead letters behind it. */
import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type { Kafka, Producer } from 'kafkajs';
import { badInput } from '../../common/errors.js';
import { Config } from '../../config/config.js';
import type { DeadLetter, DeadLetters, IncomingText, TextSink } from '../../learning/stream-ports.js';
import type { TaskDefinition } from '../../task/types.js';
import { brokerAway, compressionOf, connectKafka, PRODUCER, uncommittedRanges, withAdmin } from './client.js';
import { DeadLetterReader, type StoredLetter } from './dead-letter-reader.js';
import { withoutOwn } from './record.js';
import { REQUEST_BYTES, RequestTooLarge, sendAll, type Outgoing } from './writer.js';

@Injectable()
export class KafkaSink implements TextSink, DeadLetters, OnApplicationShutdown {
  readonly byInput = true;
  readonly #kafka: Kafka;
  readonly #reader: DeadLetterReader;
  #producer: Promise<Producer> | undefined;
  #last: Promise<void> = Promise.resolve();
  /** What every topic took so far. */
  #requestBytes = REQUEST_BYTES;

  constructor(@Inject(Config) private readonly config: Config) {
    this.#kafka = connectKafka(config);
    this.#reader = new DeadLetterReader(this.#kafka, config);
  }

  async onApplicationShutdown(): Promise<void> {
    const producer = await this.#producer?.catch(() => undefined);
    await producer?.disconnect();
  }

  /** Kafka takes every text as a new record. The id is the key: what has one id keeps its order. */
  async send({ name: task, stream }: TaskDefinition, texts: IncomingText[]): Promise<number> {
    const messages = texts.map(({ id, item }) => {
      const { text, textPair, choices, fields } = item;
      const given = Object.entries({ textPair, choices, fields }).filter(([, value]) => value !== null);
      return { key: id, value: JSON.stringify({ id, task, text, ...Object.fromEntries(given) }) };
    });
    await this.#send(messages.map((message) => ({ topic: stream.input, message })));
    return texts.length;
  }

  async pending({ stream }: TaskDefinition): Promise<number> {
    const { kafkaGroupId } = this.config;
    const ask = (): Promise<bigint> =>
      withAdmin(this.#kafka, async (admin) => {
        const ranges = await uncommittedRanges(admin, kafkaGroupId, stream.input);
        return [...ranges.values()].reduce((sum, { from, to }) => sum + to - from, 0n);
      });
    return Number(await this.#asking(ask));
  }

  async list({ stream }: TaskDefinition, first: number): Promise<{ letters: DeadLetter[]; total: number }> {
    const { letters, total } = await this.#asking(() => this.#reader.read(stream.input, first));
    return { letters: letters.map(letterOf), total };
  }

  /** At least once: a process that ends between the two steps leaves them to be replayed again. */
  async replay({ stream }: TaskDefinition, first: number): Promise<number> {
    const { letters, next } = await this.#asking(() => this.#reader.read(stream.input, first));
    await this.#send(
      letters.map(({ key, value, headers }) => {
        return { topic: stream.input, message: { key, value, headers: withoutOwn(headers) } };
      }),
    );
    await this.#asking(() => this.#reader.commit(stream.input, next));
    return letters.length;
  }

  async drop({ stream }: TaskDefinition, first: number): Promise<number> {
    const { letters, next } = await this.#asking(() => this.#reader.read(stream.input, first));
    await this.#asking(() => this.#reader.commit(stream.input, next));
    return letters.length;
  }

  /** One call at a time: a send that fails is the end of its producer. */
  #send(outgoing: Outgoing[]): Promise<void> {
    const next = this.#last.then(() => this.#sendNow(outgoing));
    this.#last = next.catch(() => undefined);
    return next;
  }

  /** Throws OVERLOADED; BAD_INPUT where the topic does not take one of them. */
  async #sendNow(outgoing: Outgoing[]): Promise<void> {
    const compression = compressionOf(this.config);
    try {
      const producer = await this.#connected();
      await sendAll(outgoing, this.#requestBytes, (topicMessages) =>
        producer.sendBatch({ topicMessages, acks: -1, compression }),
      );
    } catch (error) {
      await this.#forgetProducer();
      if (!(error instanceof RequestTooLarge)) throw brokerAway(error);
      if (error.messages.length === 1) {
        const { topic } = error.messages[0]!;
        throw badInput('text', `with ${error.bytes} bytes it is larger than topic ${topic} takes (max.message.bytes)`);
      }
      this.#requestBytes = Math.ceil(error.bytes / 2);
      // From the request that was refused on: those before it are there.
      await this.#sendNow(outgoing.slice(outgoing.indexOf(error.messages[0]!)));
    }
  }

  /** One whose send failed may count on from where the broker does not: it would take new texts for old ones. */
  async #forgetProducer(): Promise<void> {
    const producer = this.#producer;
    this.#producer = undefined;
    await (await producer?.catch(() => undefined))?.disconnect().catch(() => undefined);
  }

  async #asking<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return await ask();
    } catch (error) {
      throw brokerAway(error);
    }
  }

  #connected(): Promise<Producer> {
    this.#producer ??= (async () => {
      const producer = this.#kafka.producer({ ...PRODUCER, idempotent: true });
      await producer.connect();
      return producer;
    })();
    // The next one tries again.
    this.#producer.catch(() => (this.#producer = undefined));
    return this.#producer;
  }
}

function letterOf({ key, value, headers, timestamp }: StoredLetter): DeadLetter {
  const header = (name: string) => headers[`fewloop-${name}`]?.toString() ?? '';
  return {
    source: header('source'),
    code: header('error-code'),
    message: header('error-message'),
    key: key?.toString() ?? null,
    value: value?.toString() ?? null,
    at: new Date(Number(timestamp)),
  };
}
