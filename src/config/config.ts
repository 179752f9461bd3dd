/**
 * The configuration: the environment, validated once, as one plain object that is injected. The sole reader of
 * process.env. What is asked for and cannot be had is refused here: the service never falls back in silence.
 */
import { existsSync, readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { z } from 'zod';
import { devicesOf, isGpu } from '../common/devices.js';
import {
  databaseUrl,
  type Environment,
  longSecret,
  readEnvironment,
  webhookSecret,
  withoutSecrets,
} from './environment.js';

/** Of a host as in a URL: without a port, an IPv6 address with or without its brackets. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host.replace(/^\[(.*)\]$/u, '$1'));
}

const LOOPBACK = /^(127(\.\d{1,3}){3}|::1|localhost)$/u;

/** Where Kubernetes puts what a pod may show the API server. */
export const SERVICE_ACCOUNT_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';

export class Config {
  readonly port: number;
  readonly host: string;
  /** Absolute. */
  readonly dataDir: string;
  /** Empty: embedded. */
  readonly databaseUrl: string;
  readonly databaseUrlFile: string;
  /** Empty: none; a folder (absolute), or `s3://bucket/prefix`. */
  readonly bundleStore: string;
  readonly s3Endpoint: string;
  readonly s3Region: string;
  readonly s3PathStyle: boolean;
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
  /** Empty: the pod's service account. */
  readonly kubeconfig: string;
  /** Empty: the service's own. */
  readonly kubernetesNamespace: string;
  readonly trainerImage: string;
  readonly trainerClaim: string;
  readonly trainerCpus: number;
  readonly trainerMemory: string;
  readonly trainerGpus: number;
  readonly trainerDeadlineS: number;
  readonly trainerNodes: string;
  readonly precision: Environment['precision'];
  /** Absolute. */
  readonly baseModel: string;
  readonly auth: Environment['auth'];
  /** Empty: none. */
  readonly adminKey: string;
  /** Empty, as `databaseUrlFile`: what stood in the file stands in `adminKey`. */
  readonly adminKeyFile: string;
  /** By commas; empty: none. */
  readonly webhookUrls: string;
  readonly webhookSecret: string;
  /** Empty: what stood in the file stands in `webhookSecret`. */
  readonly webhookSecretFile: string;
  readonly oidcIssuer: string;
  readonly oidcAudience: string;
  readonly oidcJwksUrl: string;
  readonly oidcRoleClaim: string;
  readonly oidcTasksClaim: string;
  /** 0: no limit; so the next two. */
  readonly requestsPerMinute: number;
  readonly tokensPerMinute: number;
  readonly subscriptions: number;
  readonly keyHoldMinutes: number;
  readonly maxRequestTokens: number;
  readonly requestTimeoutS: number;
  /** Empty: no file. */
  readonly trustedDocuments: string;
  readonly logLevel: Environment['logLevel'];
  /** Empty: no traces. */
  readonly otlpEndpoint: string;
  readonly serviceName: string;
  readonly traceShare: number;
  readonly python: string;
  /** Empty: as many as the machine has room for. */
  readonly trainerProcesses: number | '';
  /** Empty: measured. */
  readonly hosts: number | '';
  /** Empty: measured, or 1 where `hosts` is set. */
  readonly hostThreads: number | '';
  /** Empty: half of what there is. */
  readonly modelMemoryMb: number | '';
  readonly idleMinutes: number;
  readonly warmMinutes: number;
  /** Empty: measured. */
  readonly maxBatchTokens: number | '';
  readonly cacheMb: number;
  readonly textsPerRequest: number;
  readonly maxTextLength: number;
  readonly maxBodyBytes: number;
  readonly runKeep: number;

  /** Throws an Error whose message says which variable to change. */
  constructor(given: Environment) {
    const environment = { ...given, ...secretsOf(given) };
    refuseWhatCannotBe(environment);
    refuseUnsignedWebhooks(environment);
    Object.assign(this, environment);
    this.dataDir = resolve(environment.dataDir);
    this.baseModel = baseModelFolder(environment.baseModel, environment.python);
    const { bundleStore } = environment;
    this.bundleStore = bundleStore === '' || bundleStore.startsWith('s3://') ? bundleStore : resolve(bundleStore);
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
  const { auth, host, role, databaseUrl, device } = environment;
  if (auth === 'none' && !isLoopback(host)) {
    throw new Error(
      `FEWLOOP_AUTH=none is for loopback addresses alone, and FEWLOOP_HOST is ${host}: set FEWLOOP_AUTH=required`,
    );
  }
  refuseHalfOfOidc(environment);
  if (environment.launcher === 'kubernetes') refuseHalfOfKubernetes(environment);
  if (role !== 'all' && databaseUrl === '') {
    throw new Error(`FEWLOOP_ROLE=${role} shares its database with other processes: set DATABASE_URL`);
  }
  if (isGpu(device)) refuseAbsentDevices(device);
  refuseHalfOfKafka(environment);
}

/** From the environment or from files; what was read from a file stands as if it had been given. */
function secretsOf(environment: Environment) {
  const { adminKey, adminKeyFile, databaseUrl: url, databaseUrlFile } = environment;
  const { webhookSecret: signs, webhookSecretFile } = environment;
  return {
    adminKey: readSecret('FEWLOOP_ADMIN_KEY', adminKey, adminKeyFile, longSecret),
    adminKeyFile: '',
    databaseUrl: readSecret('DATABASE_URL', url, databaseUrlFile, databaseUrl),
    databaseUrlFile: '',
    webhookSecret: readSecret('FEWLOOP_WEBHOOK_SECRET', signs, webhookSecretFile, webhookSecret),
    webhookSecretFile: '',
  };
}

/** After secrets were read from their files. */
function refuseUnsignedWebhooks({ webhookUrls, webhookSecret: secret }: Environment): void {
  if (webhookUrls === '' || secret !== '') return;
  throw new Error('FEWLOOP_WEBHOOK_URLS needs FEWLOOP_WEBHOOK_SECRET: receivers must be able to tell who sent it');
}

function readSecret(name: string, given: string, file: string, schema: z.ZodType<string>): string {
  if (file === '') return given;
  if (given !== '') throw new Error(`${name} and ${name}_FILE are both set: which of them?`);
  if (!existsSync(file)) throw new Error(`${name}_FILE=${file}: no such file`);
  const result = schema.safeParse(readFileSync(file, 'utf8').trim());
  if (!result.success) throw new Error(`${name}_FILE=${file}: ${result.error.issues[0]?.message ?? 'wrong'}`);
  return result.data;
}

function refuseHalfOfOidc({ oidcIssuer, oidcAudience, oidcJwksUrl, trustedDocuments }: Environment): void {
  if (oidcIssuer !== '' && oidcAudience === '') {
    throw new Error('FEWLOOP_OIDC_ISSUER needs FEWLOOP_OIDC_AUDIENCE: tokens for other services are not for this one');
  }
  for (const [name, url] of [
    ['FEWLOOP_OIDC_ISSUER', oidcIssuer],
    ['FEWLOOP_OIDC_JWKS_URL', oidcJwksUrl],
  ] as const) {
    if (url.startsWith('http:') && !isLoopback(new URL(url).hostname)) {
      throw new Error(`${name}=${url}: keys that come without TLS may be anybody's; use https`);
    }
  }
  if (trustedDocuments !== '' && !existsSync(trustedDocuments)) {
    throw new Error(`FEWLOOP_TRUSTED_DOCUMENTS=${trustedDocuments}: no such file`);
  }
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

/** The role that starts no runs need not be able to. */
function refuseHalfOfKubernetes({ role, kubeconfig, trainerImage, trainerClaim }: Environment): void {
  if (!['all', 'trainer'].includes(role)) return;
  for (const [name, value, meaning] of [
    ['FEWLOOP_TRAINER_IMAGE', trainerImage, 'the image of a training Job'],
    ['FEWLOOP_TRAINER_CLAIM', trainerClaim, 'the PersistentVolumeClaim of FEWLOOP_DATA_DIR, which Jobs mount too'],
  ] as const) {
    if (value === '') throw new Error(`FEWLOOP_LAUNCHER=kubernetes needs ${name}: ${meaning}`);
  }
  if (kubeconfig !== '' && !existsSync(kubeconfig)) throw new Error(`KUBECONFIG=${kubeconfig}: no such file`);
  if (kubeconfig === '' && !existsSync(`${SERVICE_ACCOUNT_DIR}/token`)) {
    throw new Error(
      'FEWLOOP_LAUNCHER=kubernetes, and there is no cluster: this process has no service account ' +
        `(${SERVICE_ACCOUNT_DIR}/token) and KUBECONFIG is not set`,
    );
  }
}

function refuseAbsentDevices(device: string): void {
  const numbers = devicesOf(device).map((one) => one.split(':')[1]!);
  const absent = numbers.filter((number) => !existsSync(`/dev/nvidia${number}`));
  if (absent.length > 0) {
    throw new Error(`FEWLOOP_DEVICE=${device}: this machine has no CUDA device ${absent.join(', ')}`);
  }
}

function baseModelFolder(name: string, python: string): string {
  const folder = [resolve(name), join(projectRoot(), name)].find((candidate) => existsSync(candidate));
  if (folder === undefined) {
    const fetched = /^[\w.-]+\/[\w.-]+(@[\w./-]+)?$/.test(name)
      ? `; of a model on a hub \`${python || '.venv/bin/python'} -m fewloop_trainer fetch-base ${name} FOLDER\` makes one`
      : '';
    throw new Error(`FEWLOOP_BASE_MODEL=${name}: no such folder${fetched}`);
  }
  return folder;
}

/** The checkout: sources and built files lie at different depths of it. */
function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

/** For child processes. */
export function childEnvironment(): NodeJS.ProcessEnv {
  return withoutSecrets(process.env);
}
