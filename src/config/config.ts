/**
 * The configuration: the environment, validated once, as one plain object that is injected. The sole reader of
 * process.env. What is asked for and cannot be had is refused here: the service never falls back in silence.
 */
import { existsSync } from 'node:fs';
import { totalmem } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Environment, readEnvironment } from './environment.js';

const LOOPBACK = /^(127(\.\d{1,3}){3}|::1|localhost)$/u;

export class Config {
  readonly port: number;
  readonly host: string;
  /** Absolute. */
  readonly dataDir: string;
  /** Empty: embedded. */
  readonly databaseUrl: string;
  /** Empty: the embedded stream. */
  readonly kafkaBrokers: string;
  readonly kafkaGroupId: string;
  readonly kafkaDelivery: Environment['kafkaDelivery'];
  readonly kafkaCompression: Environment['kafkaCompression'];
  readonly kafkaSessionTimeoutMs: number;
  readonly kafkaModelPatienceS: number;
  readonly historyDays: number;
  readonly historyRecords: number;
  readonly kafkaSsl: boolean;
  readonly kafkaSslCaFile: string;
  readonly kafkaSslCertFile: string;
  readonly kafkaSslKeyFile: string;
  readonly kafkaSaslMechanism: Environment['kafkaSaslMechanism'];
  readonly kafkaUsername: string;
  readonly kafkaPassword: string;
  readonly kafkaPasswordFile: string;
  readonly role: Environment['role'];
  readonly device: string;
  readonly launcher: Environment['launcher'];
  readonly precision: Environment['precision'];
  /** Absolute. */
  readonly baseModel: string;
  readonly auth: Environment['auth'];
  readonly logLevel: Environment['logLevel'];
  /** Empty: no traces. */
  readonly otlpEndpoint: string;
  readonly serviceName: string;
  readonly traceShare: number;
  readonly python: string;
  /** Empty: measured. */
  readonly hosts: number | '';
  /** Empty: measured, or 1 where `hosts` is set. */
  readonly hostThreads: number | '';
  /** Empty: half of what there is. */
  readonly modelMemoryMb: number | '';
  readonly idleMinutes: number;
  /** Empty: measured. */
  readonly maxBatchTokens: number | '';
  readonly cacheMb: number;
  readonly textsPerRequest: number;
  readonly maxTextLength: number;
  readonly maxBodyBytes: number;
  readonly runKeep: number;

  /** Throws an Error whose message says which variable to change. */
  constructor(environment: Environment) {
    refuseWhatCannotBe(environment);
    Object.assign(this, environment);
    this.dataDir = resolve(environment.dataDir);
    this.baseModel = baseModelFolder(environment.baseModel);
  }

  static load(env: NodeJS.ProcessEnv = process.env): Config {
    return new Config(readEnvironment(env));
  }

  /** What all model hosts together may take. */
  get modelMemoryBytes(): number {
    return this.modelMemoryMb === '' ? availableBytes() / 2 : this.modelMemoryMb * 2 ** 20;
  }

  /** The same with some values of its own: a test's folder, its database. */
  with(changes: Partial<Environment>): Config {
    return new Config(Object.assign({}, this, changes));
  }
}

/** Of the machine, or of the container where that has a limit of its own. */
function availableBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

function refuseWhatCannotBe(environment: Environment): void {
  const { auth, host, launcher, role, databaseUrl, device } = environment;
  if (auth === 'none' && !LOOPBACK.test(host)) {
    throw new Error(`FEWLOOP_AUTH=none is for loopback addresses alone, and FEWLOOP_HOST is ${host}`);
  }
  if (auth === 'required') throw new Error('FEWLOOP_AUTH=required: access control is not in this version');
  if (launcher === 'kubernetes') throw new Error('FEWLOOP_LAUNCHER=kubernetes is not in this version; use process');
  if (role !== 'all' && databaseUrl === '') {
    throw new Error(`FEWLOOP_ROLE=${role} shares its database with other processes: set DATABASE_URL`);
  }
  if (device !== 'cpu') refuseDevice(device);
  refuseHalfOfKafka(environment);
}

function refuseHalfOfKafka(environment: Environment): void {
  const { kafkaSaslMechanism, kafkaUsername, kafkaPassword, kafkaPasswordFile } = environment;
  if (kafkaPassword !== '' && kafkaPasswordFile !== '') {
    throw new Error('KAFKA_PASSWORD and KAFKA_PASSWORD_FILE are both set: which of them?');
  }
  if (kafkaSaslMechanism !== '' && (kafkaUsername === '' || kafkaPassword + kafkaPasswordFile === '')) {
    throw new Error(
      `KAFKA_SASL_MECHANISM=${kafkaSaslMechanism} needs KAFKA_USERNAME and KAFKA_PASSWORD or KAFKA_PASSWORD_FILE`,
    );
  }
  if ((environment.kafkaSslCertFile === '') !== (environment.kafkaSslKeyFile === '')) {
    throw new Error('KAFKA_SSL_CERT_FILE and KAFKA_SSL_KEY_FILE belong together');
  }
  for (const [name, file] of [
    ['KAFKA_SSL_CA_FILE', environment.kafkaSslCaFile],
    ['KAFKA_SSL_CERT_FILE', environment.kafkaSslCertFile],
    ['KAFKA_SSL_KEY_FILE', environment.kafkaSslKeyFile],
    ['KAFKA_PASSWORD_FILE', kafkaPasswordFile],
  ] as const) {
    if (file !== '' && !existsSync(file)) throw new Error(`${name}=${file}: no such file`);
  }
}

function refuseDevice(device: string): never {
  const [, list = '0'] = device.split(':');
  const absent = list.split(',').filter((n) => !existsSync(`/dev/nvidia${n}`));
  if (absent.length > 0)
    throw new Error(`FEWLOOP_DEVICE=${device}: this machine has no CUDA device ${absent.join(', ')}`);
  throw new Error(`FEWLOOP_DEVICE=${device}: serving on CUDA is not in this version; use cpu`);
}

function baseModelFolder(name: string): string {
  const folder = [resolve(name), join(projectRoot(), name)].find((candidate) => existsSync(candidate));
  if (folder === undefined) {
    throw new Error(`FEWLOOP_BASE_MODEL=${name}: no such folder (names on a hub are not in this version)`);
  }
  return folder;
}

/** The checkout: sources and built files lie at different depths of it. */
function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}
