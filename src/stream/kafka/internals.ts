/**
 * What kafkajs 2.2.4 does not offer, reached by its own modules. Its version is pinned, and the specs beside this file
 * and the integration tests would notice another one.
 */
import type { Kafka } from 'kafkajs';
import { createRequire } from 'node:module';
import { abortedRecords, type AbortedTransaction, type FetchedRecord } from './aborted-records.js';

const require = createRequire(import.meta.url);

/** Puts a function in the place of one of kafkajs's, once in the process; `by` is given that one. */
function replace<T extends object, K extends keyof T>(
  owner: T & { fixed?: true },
  name: K,
  by: (own: T[K]) => T[K],
): void {
  if (owner.fixed) return;
  owner.fixed = true;
  owner[name] = by(owner[name]);
}

interface RequestQueue {
  pending: unknown[];
  throttledUntil: number;
  scheduleCheckPendingRequests(): void;
}

/**
 * Every connection arms a timer of 1 ms again and again, for ever (`throttledUntil` of -1 makes a negative delay): about
 * a thousand wake-ups a second, and a warning of Node's. This arms it where there is something to wait for. Idempotent.
 */
export function fixIdleTimer(): void {
  const { prototype } = require('kafkajs/src/network/requestQueue') as { prototype: RequestQueue };
  replace(prototype, 'scheduleCheckPendingRequests', (arm) => {
    return function (this: RequestQueue) {
      if (this.pending.length > 0 || this.throttledUntil > Date.now()) arm.call(this);
    };
  });
}

interface ConsumerGroup {
  /** By Date.now. */
  lastRequest: number;
  heartbeat(options: { interval: number }): Promise<void>;
}

/**
 * A heartbeat is due an interval after the last one by the machine's clock: once that is set back, none leaves until it
 * has caught up, and the member is put out without noticing. A last one that lies in the future was now. Idempotent.
 */
export function fixHeartbeat(): void {
  const { prototype } = require('kafkajs/src/consumer/consumerGroup') as { prototype: ConsumerGroup };
  replace(prototype, 'heartbeat', (beat) => {
    return function (this: ConsumerGroup, options) {
      this.lastRequest = Math.min(this.lastRequest, Date.now());
      return beat.call(this, options);
    };
  });
}

interface Fetch {
  responses: { partitions: { messages: FetchedRecord[]; abortedTransactions?: AbortedTransaction[] }[] }[];
}

interface BrokerClient {
  fetch(options: object): Promise<Fetch>;
}

/**
 * kafkajs takes the aborted transactions of a fetch to be listed by where they begin, and Kafka lists them by where they
 * end: of two that overlap it hands out the records of the one that began first and ended last. What was aborted is
 * marked here as what it never hands out. Idempotent.
 */
export function fixAborted(): void {
  const { prototype } = require('kafkajs/src/broker') as { prototype: BrokerClient };
  replace(prototype, 'fetch', (fetch) => {
    return async function (this: BrokerClient, options) {
      const fetched = await fetch.call(this, options);
      for (const partition of fetched.responses.flatMap(({ partitions }) => partitions)) {
        const records = abortedRecords(partition.messages, partition.abortedTransactions ?? []);
        for (const record of records) record.isControlRecord = true;
        partition.abortedTransactions = [];
      }
      return fetched;
    };
  });
}

/** A group's position lies behind the end of a partition's log: what was there when it was read is gone. */
export class LogCut extends Error {
  /** kafkajs ends the consumer at once. */
  readonly retriable = false;

  constructor(
    readonly topic: string,
    partition: number,
    position: bigint,
  ) {
    super(`${topic}:${partition} ends before ${position}, from where it is to be read`);
  }
}

interface OffsetManager {
  groupId: string;
  cluster: {
    fetchTopicsOffset(asked: object[]): Promise<{ partitions: { offset: string }[] }[]>;
  };
  nextOffset(topic: string, partition: number): { toString(): string };
  setDefaultOffset(place: { topic: string; partition: number }): Promise<void>;
}

const neverSetBack = new Set<string>();

/**
 * A position that the log does not hold is set back to the log's beginning, in the group's committed offset as well. That
 * is as it should be where what lies before the beginning was deleted for its age. Where the position lies behind the end,
 * all that is there would be scored once more: consumers of this group end with LogCut. Idempotent.
 */
export function neverSetBackFromEnd(groupId: string): void {
  neverSetBack.add(groupId);
  const { prototype } = require('kafkajs/src/consumer/offsetManager') as { prototype: OffsetManager };
  replace(prototype, 'setDefaultOffset', (setBack) => {
    return async function (this: OffsetManager, place) {
      const { topic, partition } = place;
      const position = BigInt(this.nextOffset(topic, partition).toString());
      const asked = [{ topic, partitions: [{ partition }], fromBeginning: true }];
      const [beginning] = await this.cluster.fetchTopicsOffset(asked);
      const isBehindEnd = position > BigInt(beginning!.partitions[0]!.offset);
      if (isBehindEnd && neverSetBack.has(this.groupId)) throw new LogCut(topic, partition, position);
      await setBack.call(this, place);
    };
  });
}

interface MetadataCall {
  request: { encode(): Promise<{ buffer: Buffer }> };
}

interface MetadataProtocol {
  protocol(options: { version: number }): (options: { topics: string[] }) => MetadataCall;
}

/**
 * Who needs no topic's metadata but the brokers is given that of all topics, and an error where a partition of any of them
 * has no leader: of a topic of somebody else, too. Here no topics means none; nothing asks for all. Idempotent.
 */
export function fixMetadata(): void {
  const metadata = require('kafkajs/src/protocol/requests/metadata') as MetadataProtocol;
  replace(metadata, 'protocol', (protocol) => (version) => {
    const build = protocol(version);
    return (options) => {
      const call = build(options);
      if (options.topics.length > 0) return call;
      const encode = async () => {
        const encoded = await call.request.encode();
        // How many topics there are stands first; kafkajs writes -1, which means all.
        encoded.buffer.writeInt32BE(0);
        return encoded;
      };
      return { ...call, request: { ...call.request, encode } };
    };
  });
}

interface Encoder {
  writeBuffer(bytes: Buffer): Encoder;
  writeBoolean(value: boolean): Encoder;
  writeUVarIntString(value: string): Encoder;
  writeUVarIntArray(entries: Encoder[]): Encoder;
  /** Without a value: no tagged fields. */
  writeUVarIntBytes(): Encoder;
}

interface Decoder {
  readInt16(): number;
  readInt32(): number;
  readBoolean(): boolean;
  readBytes(length: number): Buffer;
  readUVarIntString(): string | null;
  readUVarIntArray<T>(read: (decoder: Decoder) => T): T[] | null;
  readTaggedFields(): void;
}

interface Connection {
  send(call: { request: object; response: object }): Promise<Map<string, string>>;
}

interface Cluster {
  connect(): Promise<void>;
  refreshMetadata(): Promise<void>;
  disconnect(): Promise<void>;
  findControllerBroker(): Promise<{ connectionPool: Connection }>;
}

const METADATA = 3;
/** The first version whose answers have topic ids (KIP-516). */
const METADATA_VERSION = 10;

/** Asks for topic ids, by a connection that it keeps. A call that fails leaves the next one to connect anew. */
export class TopicIds {
  #cluster: Promise<Cluster> | undefined;

  constructor(private readonly kafka: Kafka) {}

  /**
   * Topic → id, the UUID that a topic keeps from its creation to its deletion, in hexadecimal; a topic that is not there
   * is not in the map.
   */
  async of(topics: string[]): Promise<Map<string, string>> {
    this.#cluster ??= connectedCluster(this.kafka);
    try {
      const broker = await (await this.#cluster).findControllerBroker();
      return await broker.connectionPool.send({
        request: metadataRequest(topics),
        response: { decode: async (bytes: Buffer) => decodeTopicIds(bytes), parse: async (ids: unknown) => ids },
      });
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    const cluster = await this.#cluster?.catch(() => undefined);
    this.#cluster = undefined;
    await cluster?.disconnect();
  }
}

async function connectedCluster(kafka: Kafka): Promise<Cluster> {
  const symbol = Object.getOwnPropertySymbols(kafka).find(({ description }) => description?.endsWith(':createCluster'));
  const create = (kafka as unknown as Record<symbol, (options: object) => Cluster>)[symbol!]!;
  const cluster = create({ allowAutoTopicCreation: false });
  await cluster.connect();
  await cluster.refreshMetadata();
  return cluster;
}

function metadataRequest(topics: string[]): object {
  const EncoderClass = require('kafkajs/src/protocol/encoder') as new () => Encoder;
  const named = (topic: string) =>
    new EncoderClass().writeBuffer(Buffer.alloc(16)).writeUVarIntString(topic).writeUVarIntBytes();
  return {
    apiKey: METADATA,
    apiVersion: METADATA_VERSION,
    apiName: 'Metadata',
    encode: async () =>
      new EncoderClass()
        .writeUVarIntBytes()
        .writeUVarIntArray(topics.map(named))
        .writeBoolean(false)
        .writeBoolean(false)
        .writeBoolean(false)
        .writeUVarIntBytes(),
  };
}

export function decodeTopicIds(bytes: Buffer): Map<string, string> {
  const DecoderClass = require('kafkajs/src/protocol/decoder') as new (bytes: Buffer) => Decoder;
  const decoder = new DecoderClass(bytes);
  decoder.readTaggedFields();
  decoder.readInt32(); // throttle time
  decoder.readUVarIntArray(readBroker);
  decoder.readUVarIntString(); // cluster
  decoder.readInt32(); // controller
  const topics = decoder.readUVarIntArray(readTopic) ?? [];
  return new Map(topics.flatMap(({ error, name, id }) => (error === 0 && name !== null ? [[name, id]] : [])));
}

function readBroker(decoder: Decoder): void {
  decoder.readInt32();
  decoder.readUVarIntString();
  decoder.readInt32();
  decoder.readUVarIntString();
  decoder.readTaggedFields();
}

function readTopic(decoder: Decoder): { error: number; name: string | null; id: string } {
  const error = decoder.readInt16();
  const name = decoder.readUVarIntString();
  const id = decoder.readBytes(16).toString('hex');
  decoder.readBoolean(); // internal
  decoder.readUVarIntArray(readPartition);
  decoder.readInt32(); // authorized operations
  decoder.readTaggedFields();
  return { error, name, id };
}

function readPartition(decoder: Decoder): void {
  decoder.readInt16();
  decoder.readInt32(); // partition
  decoder.readInt32(); // leader
  decoder.readInt32(); // leader epoch
  for (let list = 0; list < 3; list++) decoder.readUVarIntArray((entry) => entry.readInt32());
  decoder.readTaggedFields();
}
