/**
 * A Kafka broker on this machine, without containers: for trying out (`npm run kafka`) and for the tests. Apache Kafka's
 * jars come by Maven (pom.xml), once, each held to its digest (jars.json), and lie in `.cache/`; with them there nothing
 * is fetched. Needs Java 17 or later and, to fetch, Maven. One node on the loopback address, broker and controller in one process.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { root, step } from '../prepare.mjs';

const VERSION = '4.4.0';
const jars = JSON.parse(readFileSync(join(root, 'scripts', 'kafka', 'jars.json'), 'utf8'));
const cache = join(root, '.cache', `kafka-${VERSION}`);
/** Java's archive of loaded classes, written when a broker first ends: later starts take a third of the time. */
const archive = join(cache, 'classes.jsa');
const READY_MS = 60_000;
const CLUSTER_ID = '4L6g3nShT-eMCtK--X86sw';

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** Fetches what is missing; throws with what to install where there is no Java, or with the jar that cannot be had. */
export async function ensureKafka() {
  requireJava();
  mkdirSync(cache, { recursive: true });
  const missing = Object.keys(jars).filter((path) => !existsSync(join(cache, basename(path))));
  if (missing.length === 0) return;
  // Aside and renamed, so that a fetch cut short leaves no half of a jar.
  const fetched = mkdtempSync(join(cache, 'fetched-'));
  try {
    await step(`Fetching Apache Kafka ${VERSION} by Maven (43 MB)`, () => copyDependencies(fetched));
    for (const path of missing) takeJar(path, join(fetched, basename(path)));
  } finally {
    rmSync(fetched, { recursive: true, force: true });
  }
}

async function copyDependencies(folder) {
  const pom = join(root, 'scripts', 'kafka', 'pom.xml');
  const goal = ['dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${folder}`];
  const child = spawn('mvn', ['-B', '-q', '-f', pom, ...goal], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (said += text));
  const code = await new Promise((resolve, reject) => {
    child.once('error', () =>
      reject(new Error("Apache Kafka's jars come by Maven, and there is no mvn: install maven")),
    );
    child.once('close', resolve);
  });
  if (code !== 0) throw new Error(`Maven could not fetch Apache Kafka:\n${said.trim().slice(-2000)}`);
}

function takeJar(path, file) {
  if (!existsSync(file)) throw new Error(`Maven did not bring ${path}`);
  if (sha256(readFileSync(file)) !== jars[path]) throw new Error(`${path} is not the file that jars.json describes`);
  renameSync(file, join(cache, basename(path)));
}

function requireJava() {
  const { error, stderr } = spawnSync('java', ['-version'], { encoding: 'utf8' });
  const version = Number(/version "(\d+)/.exec(stderr ?? '')?.[1] ?? 0);
  if (error || version < 17) {
    const found = error ? 'none is on the PATH' : `this one is ${version || 'of an unknown version'}`;
    throw new Error(`A Kafka broker needs Java 17 or later, and ${found}: install openjdk-17-jre-headless or newer`);
  }
}

/** A port that nobody listens on now. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/**
 * Formats `dir` where it is new, starts the broker and resolves once it takes clients. `secure`: a second listener with
 * TLS and SASL, `{ port, keystore, scram: { user: password }, plain: { user: password } }`, and with `mutual: { port,
 * truststore }` a third one, with TLS that wants a client's certificate and no SASL; who comes by these has the rights that ACLs give, who comes by the plain one may do everything. `proxied`: a second plain listener, `{ port,
 * advertised }`, whose clients are told to come by another port, that of a proxy. `settings`: further ones of the broker.
 */
export async function startBroker({ dir, port, controllerPort, secure, proxied, settings }) {
  await ensureKafka();
  mkdirSync(dir, { recursive: true });
  const properties = join(dir, 'server.properties');
  writeFileSync(properties, serverProperties({ dir, port, controllerPort, secure, proxied, settings }));
  const log = join(dir, 'broker.log');
  if (!existsSync(join(dir, 'data', 'meta.properties'))) format(properties, secure);
  const newArchive = `${archive}.${process.pid}.${port}`;
  const archiving = existsSync(archive)
    ? [`-XX:SharedArchiveFile=${archive}`, '-Xshare:auto']
    : [`-XX:ArchiveClassesAtExit=${newArchive}`];
  const output = openSync(log, 'a');
  const child = spawn('java', [...javaOptions(), ...archiving, 'kafka.Kafka', properties], {
    // What Java leaves behind when it crashes lies there too.
    cwd: dir,
    stdio: ['ignore', output, output],
  });
  closeSync(output);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  await untilListening(port, child, log);
  return {
    brokers: `127.0.0.1:${port}`,
    pid: child.pid,
    ended,
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      await ended;
      if (existsSync(newArchive)) renameSync(newArchive, archive);
    },
  };
}

function javaOptions() {
  return [
    '-Xmx256m',
    '-Xms64m',
    '-XX:+UseSerialGC',
    '-XX:TieredStopAtLevel=1',
    '-Xlog:cds=off',
    '-Xlog:class+path=off',
    '-Xlog:cds+dynamic=off',
    '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
    '-cp',
    join(cache, '*'),
  ];
}

function format(properties, secure) {
  const users = Object.entries(secure?.scram ?? {}).flatMap(([name, password]) =>
    ['256', '512'].flatMap((bits) => ['--add-scram', `SCRAM-SHA-${bits}=[name=${name},password=${password}]`]),
  );
  const tool = ['kafka.tools.StorageTool', 'format', '--standalone', '-t', CLUSTER_ID, '-c', properties, ...users];
  const { status, stderr, stdout } = spawnSync('java', [...javaOptions(), ...tool], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`the broker's folder cannot be formatted:\n${stdout}${stderr}`);
}

async function untilListening(port, child, log) {
  const giveUpAt = Date.now() + READY_MS;
  while (Date.now() < giveUpAt) {
    if (child.exitCode !== null) break;
    if (await answers(port)) return;
    await sleep(50);
  }
  child.kill('SIGKILL');
  throw new Error(`the broker did not start:\n${readFileSync(log, 'utf8').slice(-4000)}`);
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => (socket.destroy(), resolve(true)));
    socket.once('error', () => resolve(false));
  });
}

function serverProperties({ dir, port, controllerPort, secure, proxied, settings }) {
  const own = {
    'process.roles': 'broker,controller',
    'node.id': 1,
    'controller.quorum.bootstrap.servers': `127.0.0.1:${controllerPort}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'PLAINTEXT',
    'log.dirs': join(dir, 'data'),
    // One node has one copy of everything.
    'offsets.topic.replication.factor': 1,
    'offsets.topic.num.partitions': 4,
    'transaction.state.log.replication.factor': 1,
    'transaction.state.log.min.isr': 1,
    'transaction.state.log.num.partitions': 4,
    'share.coordinator.state.topic.replication.factor': 1,
    'share.coordinator.state.topic.min.isr': 1,
    'share.coordinator.state.topic.num.partitions': 4,
    'default.replication.factor': 1,
    'min.insync.replicas': 1,
    'num.partitions': 1,
    'auto.create.topics.enable': false,
    // Groups form at once, and tests may time members out soon.
    'group.initial.rebalance.delay.ms': 0,
    'group.min.session.timeout.ms': 1000,
    'num.network.threads': 2,
    'num.io.threads': 4,
    'log.cleaner.dedupe.buffer.size': 8388608,
    'log.cleaner.threads': 1,
    'background.threads': 2,
    'num.recovery.threads.per.data.dir': 1,
    // A broker that was killed cannot register again until its old session ends; the default is 9 s.
    'broker.session.timeout.ms': 2000,
    'broker.heartbeat.interval.ms': 500,
  };
  const properties = {
    ...own,
    ...(secure && secureProperties(own, secure)),
    ...(proxied && proxiedProperties(own, proxied)),
    ...settings,
  };
  const lines = Object.entries(properties).map(([name, value]) => `${name}=${value}\n`);
  return lines.join('');
}

function proxiedProperties(own, { port, advertised }) {
  return {
    listeners: `${own.listeners},PROXIED://127.0.0.1:${port}`,
    'advertised.listeners': `${own['advertised.listeners']},PROXIED://127.0.0.1:${advertised}`,
    'listener.security.protocol.map': `${own['listener.security.protocol.map']},PROXIED:PLAINTEXT`,
  };
}

function secureProperties(own, { port, keystore, plain = {}, mutual }) {
  const users = Object.entries(plain).map(([name, password]) => ` user_${name}="${password}"`);
  const scram = 'org.apache.kafka.common.security.scram.ScramLoginModule required;';
  const third = mutual && {
    listeners: `,MUTUAL://127.0.0.1:${mutual.port}`,
    advertised: `,MUTUAL://localhost:${mutual.port}`,
    protocol: ',MUTUAL:SSL',
  };
  return {
    listeners: `${own.listeners},SECURE://127.0.0.1:${port}${third?.listeners ?? ''}`,
    'advertised.listeners': `${own['advertised.listeners']},SECURE://localhost:${port}${third?.advertised ?? ''}`,
    'listener.security.protocol.map': `${own['listener.security.protocol.map']},SECURE:SASL_SSL${third?.protocol ?? ''}`,
    ...(mutual && {
      'listener.name.mutual.ssl.client.auth': 'required',
      'listener.name.mutual.ssl.truststore.type': 'PEM',
      'listener.name.mutual.ssl.truststore.location': mutual.truststore,
    }),
    'ssl.keystore.type': 'PEM',
    'ssl.keystore.location': keystore,
    'sasl.enabled.mechanisms': 'SCRAM-SHA-256,SCRAM-SHA-512,PLAIN',
    'listener.name.secure.scram-sha-256.sasl.jaas.config': scram,
    'listener.name.secure.scram-sha-512.sasl.jaas.config': scram,
    'listener.name.secure.plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required${users.join('')};`,
    'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
    'super.users': 'User:ANONYMOUS',
  };
}
