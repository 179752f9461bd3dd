/** Workers that are killed, or stopped and woken, at each point between fetch and commit: every record comes out once. */
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { connect } from '../../src/storage/database.js';
import { taskFile } from '../fixtures/intake.js';
import { expectExactlyOnce, numbered, openTopics, unique, type Topics } from '../fixtures/kafka.js';
import { startWorker, type WorkerProcess } from '../fixtures/kafka-worker.js';
import { startService, type Service } from '../fixtures/service.js';

const RECORDS = 100;

let topics: Topics;
let service: Service;
let database: DataSource;
let env: Record<string, string>;
let workers: WorkerProcess[];
let input: string;
let output: string;

beforeEach(async () => {
  workers = [];
  topics = await openTopics();
  [input, output] = [unique('texts'), unique('predictions')];
  await topics.create([input, output, `${input}.dlq`], 2);
  const kafka = {
    KAFKA_BROKERS: topics.brokers,
    KAFKA_GROUP_ID: unique('group'),
    KAFKA_SESSION_TIMEOUT_MS: '2000',
  };
  service = await startService({ ...kafka, FEWLOOP_ROLE: 'api' });
  env = { ...service.shared, ...kafka };
  database = await connect(env['DATABASE_URL']!);
  const definition = taskFile({ stream: { input, output } });
  await service.request('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', {
    definition,
  });
});

afterEach(async () => {
  for (const worker of workers) worker.signal('SIGKILL');
  await Promise.all(workers.map(({ ended }) => ended));
  await database?.destroy();
  await service?.close();
  await topics?.close();
});

function start(fault = ''): WorkerProcess {
  const worker = startWorker(env, fault);
  workers.push(worker);
  return worker;
}

/** Records in the history. */
async function kept(): Promise<number | undefined> {
  const [row] = await database.query<{ count: number }[]>('SELECT count(*)::int AS count FROM stream_record');
  return row?.count;
}

// Up to six workers are started one after the other.
it('killed at each point', async () => {
  let sent = 0;
  for (const point of ['fetch', 'begin', 'send', 'offsets', 'commit']) {
    await topics.send(input, numbered(RECORDS, sent));
    sent += RECORDS;
    const worker = start(`SIGKILL:${point}:1`);
    expect(await worker.ended).toBe('SIGKILL');
  }
  const last = start();
  expectExactlyOnce(await topics.read(output, sent), sent);
  expect(await kept()).toBe(sent);
  last.signal('SIGTERM');
  expect(await last.ended).toBe(0);
}, 180_000);

it('stopped while it commits, and woken when another has gone on', async () => {
  await topics.send(input, numbered(RECORDS));
  const sleeper = start('SIGSTOP:send:1');
  await sleeper.printed('fault send');
  start();
  await topics.read(output, RECORDS);
  sleeper.signal('SIGCONT');
  await sleeper.printed('has taken over');
  await topics.send(input, numbered(RECORDS, RECORDS));
  expectExactlyOnce(await topics.read(output, 2 * RECORDS), 2 * RECORDS);
  expect(await kept()).toBe(2 * RECORDS);
}, 180_000);
