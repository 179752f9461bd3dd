/** A broker with TLS, SASL and ACLs: what a principal may do is enough, and what it may not do is said. */
import { Logger, type INestApplicationContext } from '@nestjs/common';
import kafkajs from 'kafkajs';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import { freePort, startBroker, type Broker } from '../../scripts/kafka/broker.mjs';
import { IngestService } from '../../src/learning/ingest.js';
import { TaskService } from '../../src/learning/task-service.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile } from '../fixtures/intake.js';
import { expectExactlyOnce, numbered, openTopics, unique, valueOf, type Topics } from '../fixtures/kafka.js';

const { AclOperationTypes: Operation, AclResourceTypes: Resource, ResourcePatternTypes: Pattern } = kafkajs;
const { ALLOW } = kafkajs.AclPermissionTypes;
const ON_TOPICS = [Operation.READ, Operation.WRITE, Operation.DESCRIBE];

let folder: string;
let broker: Broker;
let securePort: number;
let mutualPort: number;
let topics: Topics;
let database: Awaited<ReturnType<typeof createDatabase>>;
let service: INestApplicationContext | undefined;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-secure-'));
  selfSigned('server', 'localhost');
  selfSigned('client', 'app');
  selfSigned('stranger', 'app');
  const keystore = file('keystore.pem');
  writeFileSync(keystore, readFileSync(file('server.key'), 'utf8') + readFileSync(file('server.pem'), 'utf8'));
  writeFileSync(join(folder, 'password'), 'scram-secret\n');
  [securePort, mutualPort] = [await freePort(), await freePort()];
  broker = await startBroker({
    dir: join(folder, 'kafka'),
    port: await freePort(),
    controllerPort: await freePort(),
    secure: {
      port: securePort,
      keystore,
      scram: { app: 'scram-secret' },
      plain: { app: 'plain-secret' },
      mutual: { port: mutualPort, truststore: file('client.pem') },
    },
  });
  topics = await openTopics(broker.brokers);
}, 60_000);

afterEach(async () => {
  await service?.close();
  service = undefined;
  await database.drop();
  vi.restoreAllMocks();
});

afterAll(async () => {
  await topics?.close();
  await broker?.stop('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const file = (name: string) => join(folder, name);

/** Key and certificate, `name.key` and `name.pem`. */
function selfSigned(name: string, commonName: string): void {
  const subject = ['-subj', `/CN=${commonName}`, '-addext', `subjectAltName=DNS:${commonName}`];
  const pair = ['-keyout', file(`${name}.key`), '-out', file(`${name}.pem`)];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...pair, ...subject], {
    stdio: 'ignore',
  });
}

async function start(group: string, sasl: object): Promise<INestApplicationContext> {
  database = await createDatabase();
  const kafka = {
    kafkaBrokers: `localhost:${securePort}`,
    kafkaGroupId: group,
    kafkaSsl: true,
    kafkaSslCaFile: file('server.pem'),
    kafkaUsername: 'app',
    ...sasl,
  };
  service = await startIntake({ url: database.url, dataDir: join(folder, group), role: 'all', kafka });
  return service;
}

function allow(principal: string, type: number, name: string, operations: number[], pattern = Pattern.LITERAL) {
  return topics.admin.createAcls({
    acl: operations.map((operation) => ({
      resourceType: type,
      resourceName: name,
      resourcePatternType: pattern,
      principal,
      host: '*',
      operation,
      permissionType: ALLOW,
    })),
  });
}

/** A topic, its dead letters, an output and a group, with all the rights that docs/kafka.md names, but for those to the output. */
async function granted(principal: string): Promise<{ input: string; output: string; group: string }> {
  const [input, output, group] = [unique('texts'), unique('predictions'), unique('group')];
  await topics.create([input, output, `${input}.dlq`], 1);
  for (const topic of [input, `${input}.dlq`]) await allow(principal, Resource.TOPIC, topic, ON_TOPICS);
  await allow(principal, Resource.GROUP, group, [Operation.READ, Operation.DESCRIBE], Pattern.PREFIXED);
  const transactional = [Operation.WRITE, Operation.DESCRIBE];
  await allow(principal, Resource.TRANSACTIONAL_ID, group, transactional, Pattern.PREFIXED);
  return { input, output, group };
}

it.each([
  ['SCRAM-SHA-512, the password in a file', { kafkaSaslMechanism: 'scram-sha-512', kafkaPasswordFile: 'password' }],
  ['SCRAM-SHA-256', { kafkaSaslMechanism: 'scram-sha-256', kafkaPassword: 'scram-secret' }],
  ['PLAIN', { kafkaSaslMechanism: 'plain', kafkaPassword: 'plain-secret' }],
])('%s: with the rights to its topics, group and transactions', async (_, sasl) => {
  const { input, output, group } = await granted('User:app');
  await allow('User:app', Resource.TOPIC, output, ON_TOPICS);
  const warn = vi.spyOn(Logger.prototype, 'warn');
  const password = 'kafkaPasswordFile' in sasl ? { kafkaPasswordFile: file(sasl.kafkaPasswordFile) } : {};
  const running = await start(group, { ...sasl, ...password });
  await running.get(TaskService).apply(taskFile({ stream: { input, output } }), 'test');
  await running.get(IngestService).ingest('tiny', [{ id: 'a', text: '很好' }]);
  expect((await topics.read(output, 1)).map((message) => valueOf(message)['id'])).toEqual(['a']);
  // It may not create the topic of the lifecycle events.
  expect(warn).toHaveBeenCalledWith(
    expect.stringMatching(/^topics fewloop\.events are missing and cannot be created/u),
  );
});

it("a client's certificate in place of a password, and a stranger's is refused", async () => {
  const { input, output, group } = await granted('User:CN=app');
  await allow('User:CN=app', Resource.TOPIC, output, ON_TOPICS);
  const certificate = (name: string) => ({
    kafkaBrokers: `localhost:${mutualPort}`,
    kafkaUsername: '',
    kafkaSslCertFile: file(`${name}.pem`),
    kafkaSslKeyFile: file(`${name}.key`),
  });
  const running = await start(group, certificate('client'));
  await running.get(TaskService).apply(taskFile({ stream: { input, output } }), 'test');
  await running.get(IngestService).ingest('tiny', [{ id: 'a', text: '很好' }]);
  expect((await topics.read(output, 1)).map((message) => valueOf(message)['id'])).toEqual(['a']);
  await running.close();
  await database.drop();

  const stranger = await start(group, certificate('stranger'));
  await stranger.get(TaskService).apply(taskFile({ stream: { input, output } }), 'test');
  await expect(stranger.get(IngestService).ingest('tiny', [{ text: '很好' }])).rejects.toMatchObject({
    code: 'OVERLOADED',
  });
});

it('brokers whose certificate no known CA has signed are not spoken to', async () => {
  const warn = vi.spyOn(Logger.prototype, 'warn');
  const sasl = { kafkaSaslMechanism: 'plain', kafkaPassword: 'plain-secret', kafkaSslCaFile: file('stranger.pem') };
  const running = await start(unique('group'), sasl);
  await running.get(TaskService).apply(taskFile(), 'test');
  await vi.waitFor(() => expect(warn).toHaveBeenCalledWith(expect.stringContaining('certificate')), 15_000);
});

it('without the right to write its output it waits, says so, and goes on once it has it', async () => {
  const { input, output, group } = await granted('User:app');
  const warn = vi.spyOn(Logger.prototype, 'warn');
  const running = await start(group, { kafkaSaslMechanism: 'plain', kafkaPassword: 'plain-secret' });
  await running.get(TaskService).apply(taskFile({ stream: { input, output } }), 'test');
  await topics.send(input, numbered(20));
  const told = () =>
    expect(warn).toHaveBeenCalledWith(expect.stringMatching(/^scoring pauses: .*(authori[sz]ed|authorization)/iu));
  await vi.waitFor(told, { timeout: 20_000 });
  await allow('User:app', Resource.TOPIC, output, ON_TOPICS);
  expectExactlyOnce(await topics.read(output, 20), 20);
});

it('a wrong password is told, without it', async () => {
  const warn = vi.spyOn(Logger.prototype, 'warn');
  const running = await start(unique('group'), { kafkaSaslMechanism: 'plain', kafkaPassword: 'wr0ng-secret' });
  await running.get(TaskService).apply(taskFile(), 'test');
  await vi.waitFor(() => expect(warn).toHaveBeenCalledWith(expect.stringContaining('Authentication failed')), 15_000);
  await expect(running.get(IngestService).ingest('tiny', [{ text: '很好' }])).rejects.toMatchObject({
    code: 'OVERLOADED',
  });
  expect(JSON.stringify(warn.mock.calls)).not.toContain('wr0ng-secret');
});
