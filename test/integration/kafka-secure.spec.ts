/** A broker with TLS, SASL and ACLs: what a principal may do is enough, and what it may not do is said. */
import { Logger, type INestApplicationContext } from '@nestjs/common';
import kafkajs, { type Admin } from 'kafkajs';
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
import { openTopics, unique, valueOf, type Topics } from '../fixtures/kafka.js';

const { AclOperationTypes: Operation, AclResourceTypes: Resource, ResourcePatternTypes: Pattern } = kafkajs;
const { ALLOW } = kafkajs.AclPermissionTypes;

let folder: string;
let broker: Broker;
let securePort: number;
let topics: Topics;
let database: Awaited<ReturnType<typeof createDatabase>>;
let service: INestApplicationContext | undefined;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-secure-'));
  const [key, cert, keystore] = ['key.pem', 'cert.pem', 'keystore.pem'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
  const pair = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', key, '-out', cert];
  execFileSync('openssl', [...pair, ...subject], { stdio: 'ignore' });
  writeFileSync(keystore, readFileSync(key, 'utf8') + readFileSync(cert, 'utf8'));
  writeFileSync(join(folder, 'password'), 'scram-secret\n');
  securePort = await freePort();
  broker = await startBroker({
    dir: join(folder, 'kafka'),
    port: await freePort(),
    controllerPort: await freePort(),
    secure: { port: securePort, keystore, scram: { app: 'scram-secret' }, plain: { app: 'plain-secret' } },
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

async function start(group: string, sasl: object): Promise<INestApplicationContext> {
  database = await createDatabase();
  const kafka = {
    kafkaBrokers: `localhost:${securePort}`,
    kafkaGroupId: group,
    kafkaSsl: true,
    kafkaSslCaFile: join(folder, 'cert.pem'),
    kafkaUsername: 'app',
    ...sasl,
  };
  service = await startIntake({ url: database.url, dataDir: join(folder, group), role: 'all', kafka });
  return service;
}

function allow(admin: Admin, type: number, name: string, operations: number[], pattern = Pattern.LITERAL) {
  return admin.createAcls({
    acl: operations.map((operation) => ({
      resourceType: type,
      resourceName: name,
      resourcePatternType: pattern,
      principal: 'User:app',
      host: '*',
      operation,
      permissionType: ALLOW,
    })),
  });
}

it.each([
  ['SCRAM, the password in a file', { kafkaSaslMechanism: 'scram-sha-512', kafkaPasswordFile: 'password' }],
  ['PLAIN', { kafkaSaslMechanism: 'plain', kafkaPassword: 'plain-secret' }],
])('%s: with the rights to its topics, group and transactions', async (_, sasl) => {
  const [input, output, group] = [unique('texts'), unique('predictions'), unique('group')];
  await topics.create([input, output, `${input}.dlq`], 1);
  for (const topic of [input, output, `${input}.dlq`]) {
    await allow(topics.admin, Resource.TOPIC, topic, [Operation.READ, Operation.WRITE, Operation.DESCRIBE]);
  }
  await allow(topics.admin, Resource.GROUP, group, [Operation.READ, Operation.DESCRIBE], Pattern.PREFIXED);
  const transactional = [Operation.WRITE, Operation.DESCRIBE];
  await allow(topics.admin, Resource.TRANSACTIONAL_ID, group, transactional, Pattern.PREFIXED);

  const warn = vi.spyOn(Logger.prototype, 'warn');
  const file = 'kafkaPasswordFile' in sasl ? { kafkaPasswordFile: join(folder, sasl.kafkaPasswordFile) } : {};
  const running = await start(group, { ...sasl, ...file });
  await running.get(TaskService).apply(taskFile({ stream: { input, output } }), 'test');
  await running.get(IngestService).ingest('tiny', [{ id: 'a', text: '很好' }]);
  expect((await topics.read(output, 1)).map((message) => valueOf(message)['id'])).toEqual(['a']);
  // It may not create the topic of the lifecycle events.
  expect(warn).toHaveBeenCalledWith(
    expect.stringMatching(/^topics fewloop\.events are missing and cannot be created/u),
  );
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
