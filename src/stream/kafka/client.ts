/** The connection to Kafka, as the environment describes it. The password is read here and goes nowhere else. */
import { Logger } from '@nestjs/common';
import kafkajs, { type Kafka, type KafkaConfig, type LogEntry, type SASLOptions } from 'kafkajs';
import { readFileSync } from 'node:fs';
import { FewloopError } from '../../common/errors.js';
import type { Config } from '../../config/config.js';
import { registerCodecs } from './codecs.js';
import { fixIdleTimer } from './internals.js';

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
