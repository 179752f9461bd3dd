/** The connection to Kafka, as the environment describes it. The password is read here and goes nowhere else. */
import { Logger } from '@nestjs/common';
import kafkajs, { type Admin, type Kafka, type KafkaConfig, type LogEntry, type SASLOptions } from 'kafkajs';
import { readFileSync } from 'node:fs';
import { FewloopError } from '../../common/errors.js';
import type { Config } from '../../config/config.js';
import { registerCodecs } from './codecs.js';
import { fixAborted, fixHeartbeat, fixIdleTimer, fixMetadata } from './internals.js';

const { CompressionTypes, Partitioners, logLevel } = kafkajs;

export type KafkaSettings = Pick<Config, Extract<keyof Config, `kafka${string}`>>;

const COMPRESSION = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  lz4: CompressionTypes.LZ4,
  snappy: CompressionTypes.Snappy,
  zstd: CompressionTypes.ZSTD,
};

/** What every producer is made with: keys decide partitions as they do for Java's clients. */
export const PRODUCER = { createPartitioner: Partitioners.DefaultPartitioner, allowAutoTopicCreation: false };

/** How long a broker that is away is tried before what was asked of it fails; callers try again. */
const RETRY = { initialRetryTime: 100, retries: 6, maxRetryTime: 3_000 };
const RETRY_AFTER_MS = 1_000;

export function connectKafka(settings: KafkaSettings): Kafka {
  fixIdleTimer();
  fixHeartbeat();
  fixAborted();
  fixMetadata();
  registerCodecs();
  const sasl = saslOf(settings);
  return new kafkajs.Kafka({
    clientId: 'fewloop',
    brokers: settings.kafkaBrokers.split(','),
    ssl: sslOf(settings),
    ...(sasl && { sasl }),
    connectionTimeout: 5_000,
    retry: RETRY,
    logCreator: () => log,
    logLevel: logLevel.WARN,
  });
}

export function compressionOf({ kafkaCompression }: KafkaSettings): number {
  return COMPRESSION[kafkaCompression];
}

/** A connection for one question. */
export async function withAdmin<T>(kafka: Kafka, ask: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = kafka.admin();
  await admin.connect();
  try {
    return await ask(admin);
  } finally {
    await admin.disconnect();
  }
}

/** Offsets that the group has committed in a topic, by partition; none where it has not. */
export async function committedOffsets(admin: Admin, groupId: string, topic: string): Promise<Map<number, bigint>> {
  const [offsets] = await admin.fetchOffsets({ groupId, topics: [topic] });
  const known = (offsets?.partitions ?? []).map(({ partition, offset }) => [partition, BigInt(offset)] as const);
  return new Map(known.filter(([, offset]) => offset >= 0n));
}

/** Partition → the range of offsets that the group has not committed, empty ones left out. */
export async function uncommittedRanges(
  admin: Admin,
  groupId: string,
  topic: string,
): Promise<Map<number, { from: bigint; to: bigint }>> {
  const ends = await admin.fetchTopicOffsets(topic);
  const committed = await committedOffsets(admin, groupId, topic);
  const ranges = ends.map(({ partition, low, high }) => {
    const known = committed.get(partition) ?? 0n;
    const from = known > BigInt(low) ? known : BigInt(low);
    return [partition, { from, to: BigInt(high) }] as const;
  });
  return new Map(ranges.filter(([, { from, to }]) => from < to));
}

/** What a caller is told while no broker answers. */
export function brokerAway(cause: unknown): FewloopError {
  const message = 'Kafka does not take it now; ask again soon';
  return new FewloopError('OVERLOADED', message, { retryAfterMs: RETRY_AFTER_MS, cause });
}

function sslOf(settings: KafkaSettings): KafkaConfig['ssl'] {
  const { kafkaSsl, kafkaSslCaFile, kafkaSslCertFile, kafkaSslKeyFile } = settings;
  if (!kafkaSsl) return false;
  const ca = kafkaSslCaFile === '' ? {} : { ca: [readFileSync(kafkaSslCaFile, 'utf8')] };
  if (kafkaSslCertFile === '') return ca;
  return { ...ca, cert: readFileSync(kafkaSslCertFile, 'utf8'), key: readFileSync(kafkaSslKeyFile, 'utf8') };
}

function saslOf(settings: KafkaSettings): SASLOptions | undefined {
  const { kafkaSaslMechanism: mechanism, kafkaUsername: username, kafkaPassword, kafkaPasswordFile } = settings;
  if (mechanism === '') return undefined;
  // Files that secrets are mounted as often end with a line feed.
  const password = kafkaPasswordFile === '' ? kafkaPassword : readFileSync(kafkaPasswordFile, 'utf8').trimEnd();
  return { mechanism, username, password };
}

const logger = new Logger('Kafka');

/** The client tells its own retries as errors; what fails for good is thrown, and logged by who asked. */
function log({ namespace, log: { message, error } }: LogEntry): void {
  const detail = typeof error === 'string' && !message.includes(error) ? `: ${error}` : '';
  logger.debug(`${namespace}: ${message}${detail}`);
}
