/** The environment's variables, one entry each: name, meaning, default, check. The README's table is rendered from it. */
import { z } from 'zod';

const whole = (min: number, max: number) => z.coerce.number().int().min(min).max(max);
/** A key is as good as what nobody can guess of it. */
export const longSecret = z.string().min(32, 'must have 32 characters or more');
export const webhookSecret = z
  .string()
  .regex(/^whsec_[A-Za-z0-9+/]{32,}={0,2}$/u, 'must be whsec_ and 24 bytes or more in base64');
/** Without a name and a password: `fetch` takes no such address. */
function isHttp(url: string): boolean {
  if (!URL.canParse(url.trim())) return false;
  const { protocol, username, password } = new URL(url.trim());
  return /^https?:$/u.test(protocol) && username === '' && password === '';
}
const isBundleStore = (value: string) =>
  !/^\w+:\/\//u.test(value) || /^s3:\/\/[a-z0-9][a-z0-9.-]+(\/[^?#]*)?$/u.test(value);
export const databaseUrl = z.url({ protocol: /^postgres(ql)?$/u });

interface Variable {
  name: string;
  /** A secret's value is told to nobody, not in the message that refuses it either. */
  kind?: 'secret' | undefined;
  /** For the table; the text of the default as a user would write it. */
  standard: string;
  description: string;
  schema: z.ZodType;
}

export const environment = {
  port: variable('PORT', '3000', 'Port of the HTTP server', whole(0, 65535)),
  host: variable('FEWLOOP_HOST', '127.0.0.1', 'Address that the HTTP server listens on', z.string()),
  dataDir: variable(
    'FEWLOOP_DATA_DIR',
    '.fewloop',
    'Folder of everything the service keeps: model bundles, runs, the embedded database',
    z.string(),
  ),
  databaseUrl: variable(
    'DATABASE_URL',
    '',
    'PostgreSQL to use; empty: an embedded one in the data folder',
    z.union([z.literal(''), databaseUrl]),
    'secret',
  ),
  databaseUrlFile: variable('DATABASE_URL_FILE', '', 'File that holds it, in place of `DATABASE_URL`', z.string()),
  bundleStore: variable(
    'FEWLOOP_BUNDLE_STORE',
    '',
    'Where replicas get bundles that they lack: a folder that they share, or `s3://bucket/prefix`; empty: each has those of its data folder alone',
    z.string().refine(isBundleStore, 'must be a folder or s3://bucket[/prefix]'),
  ),
  s3Endpoint: variable(
    'FEWLOOP_S3_ENDPOINT',
    '',
    "Address of an S3 that is not Amazon's; credentials come as for any AWS client (`AWS_ACCESS_KEY_ID`, profiles, roles)",
    z.union([z.literal(''), z.url({ protocol: /^https?$/u })]),
  ),
  s3Region: variable('FEWLOOP_S3_REGION', '', 'Its region; empty: as for any AWS client (`AWS_REGION`)', z.string()),
  s3PathStyle: variable(
    'FEWLOOP_S3_PATH_STYLE',
    'false',
    "`true`: the bucket is named in the path, not in the host's name, as most S3 but Amazon's want it",
    z.stringbool(),
  ),
  kafkaBrokers: variable(
    'KAFKA_BROKERS',
    '',
    'Kafka brokers, `host:port[,…]`; empty: the embedded stream',
    z.union([z.literal(''), z.string().regex(/^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$/u, 'must be host:port[,host:port]…')]),
  ),
  kafkaGroupId: variable(
    'KAFKA_GROUP_ID',
    'fewloop',
    'Consumer group; also the prefix of transactional ids',
    z.string().min(1),
  ),
  kafkaDelivery: variable(
    'KAFKA_DELIVERY',
    'exactly-once',
    '`exactly-once`, or `at-least-once` for brokers without transactions',
    z.enum(['exactly-once', 'at-least-once']),
  ),
  kafkaCompression: variable(
    'KAFKA_COMPRESSION',
    'gzip',
    'Of what is produced: `none`, `gzip`, `lz4`, `snappy` or `zstd`; all are read',
    z.enum(['none', 'gzip', 'lz4', 'snappy', 'zstd']),
  ),
  kafkaSessionTimeoutMs: variable(
    'KAFKA_SESSION_TIMEOUT_MS',
    '30000',
    'A stream worker that is silent for so long loses its partitions',
    whole(1000, 1_800_000),
  ),
  kafkaModelPatienceS: variable(
    'KAFKA_MODEL_PATIENCE_S',
    '60',
    'Seconds that a task without a model may hold up an input topic which others read too, before its records go to the dead-letter topic; 0: for ever',
    whole(0, 31_536_000),
  ),
  historyDays: variable(
    'FEWLOOP_HISTORY_DAYS',
    '30',
    'Days that what became of texts of the stream is kept in PostgreSQL, and an id of the embedded stream is known; 0: for ever',
    whole(0, 36_500),
  ),
  historyRecords: variable(
    'FEWLOOP_HISTORY_RECORDS',
    '10000000',
    'Records of an input partition, or of a task of the embedded stream, of which it is kept, at most; 0: of all',
    whole(0, 1_000_000_000_000),
  ),
  kafkaSsl: variable('KAFKA_SSL', 'false', 'TLS to the brokers: `true` or `false`', z.stringbool()),
  kafkaSslCaFile: variable('KAFKA_SSL_CA_FILE', '', "PEM file of the brokers' CA; empty: the system's", z.string()),
  kafkaSslCertFile: variable('KAFKA_SSL_CERT_FILE', '', "PEM file of the client's certificate", z.string()),
  kafkaSslKeyFile: variable('KAFKA_SSL_KEY_FILE', '', "PEM file of the client's private key", z.string()),
  kafkaSaslMechanism: variable(
    'KAFKA_SASL_MECHANISM',
    '',
    '`plain`, `scram-sha-256` or `scram-sha-512`; empty: no SASL',
    z.enum(['', 'plain', 'scram-sha-256', 'scram-sha-512']),
  ),
  kafkaUsername: variable('KAFKA_USERNAME', '', 'SASL user', z.string()),
  kafkaPassword: variable('KAFKA_PASSWORD', '', 'SASL password', z.string(), 'secret'),
  kafkaPasswordFile: variable(
    'KAFKA_PASSWORD_FILE',
    '',
    'File that holds the SASL password, in place of `KAFKA_PASSWORD`',
    z.string(),
  ),
  role: variable(
    'FEWLOOP_ROLE',
    'all',
    'What this process does: `all`, `api`, `stream` or `trainer`; all but `all` need `DATABASE_URL`',
    z.enum(['all', 'api', 'stream', 'trainer']),
  ),
  device: variable(
    'FEWLOOP_DEVICE',
    'cpu',
    '`cpu` or `cuda:N[,…]`; asked for and absent: the service refuses to start',
    z.string().regex(/^(cpu|cuda(:\d+(,\d+)*)?)$/u, 'must be cpu or cuda:N[,…]'),
  ),
  launcher: variable(
    'FEWLOOP_LAUNCHER',
    'process',
    'How training runs are started: `process` or `kubernetes`',
    z.enum(['process', 'kubernetes']),
  ),
  kubeconfig: variable(
    'KUBECONFIG',
    '',
    'File that says how the cluster of `FEWLOOP_LAUNCHER=kubernetes` is reached; empty: by the service account of the pod that the service runs in',
    z.string(),
  ),
  kubernetesNamespace: variable(
    'FEWLOOP_KUBERNETES_NAMESPACE',
    '',
    "Namespace of the training Jobs; empty: the service's own, or that of `KUBECONFIG`'s context",
    z.union([z.literal(''), z.string().regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/u, 'must be a namespace')]),
  ),
  trainerImage: variable('FEWLOOP_TRAINER_IMAGE', '', 'Image of a training Job', z.string()),
  trainerClaim: variable(
    'FEWLOOP_TRAINER_CLAIM',
    '',
    'PersistentVolumeClaim whose root is `FEWLOOP_DATA_DIR` here; a training Job mounts the folder of its run from it, at the same path',
    z.string(),
  ),
  trainerCpus: variable('FEWLOOP_TRAINER_CPUS', '2', 'Processors of a training Job, and its threads', whole(1, 256)),
  trainerMemory: variable(
    'FEWLOOP_TRAINER_MEMORY',
    '4Gi',
    'Memory of a training Job, `…Mi` or `…Gi`: what it may take, and what is kept for it',
    z.string().regex(/^[1-9]\d*[MG]i$/u, 'must be …Mi or …Gi'),
  ),
  trainerGpus: variable('FEWLOOP_TRAINER_GPUS', '0', 'GPUs (`nvidia.com/gpu`) of a training Job', whole(0, 64)),
  trainerDeadlineS: variable(
    'FEWLOOP_TRAINER_DEADLINE_S',
    '86400',
    'Seconds after which a training Job is ended, time without a node included',
    whole(60, 2 ** 31 - 1),
  ),
  trainerNodes: variable(
    'FEWLOOP_TRAINER_NODES',
    '',
    'Labels of the nodes that a training Job may run on, `key=value[,…]`; empty: any',
    z.union([z.literal(''), z.string().regex(/^[^\s,=]+=[^\s,=]*(,[^\s,=]+=[^\s,=]*)*$/u, 'must be key=value[,…]')]),
  ),
  baseModel: variable('FEWLOOP_BASE_MODEL', 'models/base-zh', 'Folder of the base model', z.string()),
  precision: variable(
    'FEWLOOP_PRECISION',
    'auto',
    '`auto`: the fastest here of those that a trained version was admitted in; `fp32`, `fp16` or `int8`: that one or an error. Versions without training are fp32',
    z.enum(['auto', 'fp32', 'fp16', 'int8']),
  ),
  auth: variable(
    'FEWLOOP_AUTH',
    'none',
    '`none` (only on a loopback address) or `required`',
    z.enum(['none', 'required']),
  ),
  adminKey: variable(
    'FEWLOOP_ADMIN_KEY',
    '',
    'Key of role ADMIN that makes the others; 32 characters or more, of which nobody can guess any',
    z.union([z.literal(''), longSecret]),
    'secret',
  ),
  adminKeyFile: variable(
    'FEWLOOP_ADMIN_KEY_FILE',
    '',
    'File that holds it, in place of `FEWLOOP_ADMIN_KEY`',
    z.string(),
  ),
  webhookUrls: variable(
    'FEWLOOP_WEBHOOK_URLS',
    '',
    'Where lifecycle events are posted, signed; several by commas; empty: nowhere',
    z
      .string()
      .refine(
        (value) => value === '' || value.split(',').every(isHttp),
        'must be http or https addresses without a name and a password, by commas',
      ),
    'secret',
  ),
  webhookSecret: variable(
    'FEWLOOP_WEBHOOK_SECRET',
    '',
    'What they are signed with: `whsec_` and 24 bytes or more in base64 (`echo whsec_$(openssl rand -base64 32)`)',
    z.union([z.literal(''), webhookSecret]),
    'secret',
  ),
  webhookSecretFile: variable(
    'FEWLOOP_WEBHOOK_SECRET_FILE',
    '',
    'File that holds it, in place of `FEWLOOP_WEBHOOK_SECRET`',
    z.string(),
  ),
  oidcIssuer: variable(
    'FEWLOOP_OIDC_ISSUER',
    '',
    'Issuer whose tokens are taken as well as keys; empty: none',
    z.union([z.literal(''), z.url({ protocol: /^https?$/u })]),
  ),
  oidcAudience: variable('FEWLOOP_OIDC_AUDIENCE', '', 'Audience that its tokens must name', z.string()),
  oidcJwksUrl: variable(
    'FEWLOOP_OIDC_JWKS_URL',
    '',
    "Where its public keys are; empty: where the issuer's `/.well-known/openid-configuration` says",
    z.union([z.literal(''), z.url({ protocol: /^https?$/u })]),
  ),
  oidcRoleClaim: variable(
    'FEWLOOP_OIDC_ROLE_CLAIM',
    'fewloop_role',
    'Claim that names the role, or several of which the highest counts; `a.b` is b in a',
    z.string().min(1),
  ),
  oidcTasksClaim: variable(
    'FEWLOOP_OIDC_TASKS_CLAIM',
    '',
    'Claim that lists the tasks; a token without it may use none; empty: every token may use all',
    z.string(),
  ),
  requestsPerMinute: variable(
    'FEWLOOP_REQUESTS_PER_MINUTE',
    '0',
    'Requests that a key or token may make, where its own limit does not say otherwise; 0: any number',
    whole(0, 2 ** 31 - 1),
  ),
  tokensPerMinute: variable(
    'FEWLOOP_TOKENS_PER_MINUTE',
    '0',
    'The same for tokens: texts × members × tokens of a text',
    whole(0, 2 ** 31 - 1),
  ),
  keyHoldMinutes: variable(
    'FEWLOOP_KEY_HOLD_MINUTES',
    '60',
    'Minutes for which the keys that were read last hold while the database is away; what is revoked meanwhile is so once it is back',
    whole(1, 100_000),
  ),
  subscriptions: variable('FEWLOOP_SUBSCRIPTIONS', '100', 'The same for subscriptions open at once', whole(0, 100_000)),
  maxRequestTokens: variable(
    'FEWLOOP_MAX_REQUEST_TOKENS',
    '5000000',
    'Texts × members × tokens that one request may ask for',
    whole(1, 2 ** 31 - 1),
  ),
  requestTimeoutS: variable(
    'FEWLOOP_REQUEST_TIMEOUT_S',
    '30',
    'Seconds within which a request must have arrived whole',
    whole(1, 3600),
  ),
  trustedDocuments: variable(
    'FEWLOOP_TRUSTED_DOCUMENTS',
    '',
    'JSON file with the SHA-256, in hex, of each query that a CLIENT may send; empty: any',
    z.string(),
  ),
  logLevel: variable(
    'FEWLOOP_LOG_LEVEL',
    'info',
    '`fatal`, `error`, `warn`, `info`, `debug`, `trace` or `silent`',
    z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']),
  ),
  otlpEndpoint: variable(
    'OTEL_EXPORTER_OTLP_ENDPOINT',
    '',
    'Collector that traces are sent to, OTLP over HTTP; empty: none are made',
    z.union([z.literal(''), z.url({ protocol: /^https?$/u })]),
  ),
  serviceName: variable('OTEL_SERVICE_NAME', 'fewloop', 'Name of the service in traces', z.string().min(1)),
  traceShare: variable(
    'OTEL_TRACES_SAMPLER_ARG',
    '0.01',
    'Share of the requests without a `traceparent` that are traced, 0 to 1; of the others the header says it',
    z.coerce.number().min(0).max(1),
  ),
  python: variable(
    'FEWLOOP_PYTHON',
    '',
    "Python of the trainer's environment; empty: the one that `npm start` installs",
    z.string(),
  ),
  trainerProcesses: variable(
    'FEWLOOP_TRAINER_PROCESSES',
    '',
    'Processes of a training run, which share its models out; empty: one for each GPU, or two cores, and at most as many as half of the memory has room for',
    z.union([z.literal(''), whole(1, 64)]),
  ),
  hosts: variable(
    'FEWLOOP_HOSTS',
    '',
    'Model host processes for each set of graphs; empty: as many, with as many threads, as are fastest here, measured once when the service starts',
    z.union([z.literal(''), whole(1, 64)]),
  ),
  hostThreads: variable(
    'FEWLOOP_HOST_THREADS',
    '',
    'Threads of a model host; empty: measured with the hosts, or 1 where their number is set',
    z.union([z.literal(''), whole(1, 64)]),
  ),
  modelMemoryMb: variable(
    'FEWLOOP_MODEL_MEMORY_MB',
    '',
    'Megabytes that all model hosts may take, those of other processes of the machine with the same data folder among them; over it idle tasks rest until they are asked; empty: half of what there is',
    z.union([z.literal(''), whole(64, 2 ** 24)]),
  ),
  idleMinutes: variable(
    'FEWLOOP_IDLE_MINUTES',
    '60',
    'Minutes after which a task that nobody asks gives its memory back until it is asked; 0: never',
    whole(0, 100_000),
  ),
  warmMinutes: variable(
    'FEWLOOP_WARM_MINUTES',
    '10',
    'Minutes for which a replaced version stays open, so that going back to it is immediate; given up earlier where another model needs its memory; 0: none is kept',
    whole(0, 100_000),
  ),
  maxBatchTokens: variable(
    'FEWLOOP_MAX_BATCH_TOKENS',
    '',
    'Padded tokens of a batch; empty: what is fastest here, measured once when the first model loads',
    z.union([z.literal(''), whole(128, 1_048_576)]),
  ),
  cacheMb: variable(
    'FEWLOOP_CACHE_MB',
    '32',
    'Megabytes of recent predictions, by text, version and policy; 0: none are kept',
    whole(0, 65_536),
  ),
  textsPerRequest: variable('FEWLOOP_TEXTS_PER_REQUEST', '1000', 'Texts that one request may hold', whole(1, 100_000)),
  maxTextLength: variable('FEWLOOP_MAX_TEXT_LENGTH', '20000', 'Characters that one text may have', whole(1, 1_000_000)),
  maxBodyBytes: variable('FEWLOOP_MAX_BODY_BYTES', '8388608', 'Bytes that one request may have', whole(1024, 2 ** 30)),
  runKeep: variable('FEWLOOP_RUN_KEEP', '5', 'Run folders kept for each task', whole(1, 1000)),
};

export type Environment = { [K in keyof typeof environment]: z.output<(typeof environment)[K]['schema']> };

/** Reads every variable; throws one Error that names each that is wrong. An empty variable is an unset one. */
export function readEnvironment(env: NodeJS.ProcessEnv): Environment {
  const faults: string[] = [];
  const read = ([field, { name, standard, schema, kind }]: [string, Variable]) => {
    const result = schema.safeParse(env[name] || standard);
    if (!result.success) {
      const value = kind === 'secret' ? '…' : (env[name] ?? '');
      faults.push(`${name}=${value}: ${result.error.issues[0]?.message ?? 'wrong'}`);
    }
    return [field, result.data];
  };
  const values = Object.fromEntries(Object.entries(environment).map(read)) as Environment;
  if (faults.length > 0) throw new Error(`The environment is wrong:\n${faults.join('\n')}`);
  return values;
}

/** The README's table, Markdown. */
export function environmentTable(): string {
  const rows = Object.values(environment).map(
    ({ name, standard, description }) =>
      `| \`${name}\` | ${standard === '' ? '' : `\`${standard}\``} | ${description} |`,
  );
  return ['| variable | default | meaning |', '|---|---|---|', ...rows].join('\n');
}

function variable<T extends z.ZodType>(
  name: string,
  standard: string,
  description: string,
  schema: T,
  kind?: 'secret',
) {
  return { name, standard, description, schema, kind };
}

/** Of the AWS SDK, which reads them itself. */
const AWS_SECRETS = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'];

/** What a child process gets: the environment without the secrets, which none of them needs. */
export function withoutSecrets(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const own = Object.values(environment).flatMap(({ name, kind }) => (kind === 'secret' ? [name] : []));
  const secrets = new Set([...own, ...AWS_SECRETS]);
  return Object.fromEntries(Object.entries(env).filter(([name]) => !secrets.has(name)));
}
