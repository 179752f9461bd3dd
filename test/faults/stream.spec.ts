/**
 * The stream under random faults, a schedule a seed: workers killed at a point or at any, stopped and woken, joining and
 * leaving, the broker ended or killed, the database away, a model host killed, a swap. A ledger of what was sent is
 * compared with what came out. FAULT_SEEDS=7 or 1-20 chooses; FAULT_REPORT names a file for the table.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, expect, inject, it, vi } from 'vitest';
import { freePort, startBroker, type Broker } from '../../scripts/kafka/broker.mjs';
import { taskFile } from '../fixtures/intake.js';
import { numbered, openTopics, unique, type Topics } from '../fixtures/kafka.js';
import { startWorker, type WorkerProcess } from '../fixtures/kafka-worker.js';
import { descendants } from '../fixtures/processes.js';
import { startService, type Service } from '../fixtures/service.js';
import { compare, type Verdict } from './ledger.js';

const [FIRST = 1, LAST = FIRST] = (process.env['FAULT_SEEDS'] ?? '1-20').split('-').map(Number);
const SEEDS = Array.from({ length: LAST - FIRST + 1 }, (_, i) => FIRST + i);
const RECORDS = 3000;
const CHUNK = 100;
const FAULTS_A_SEED = 5;
const SESSION_MS = 2000;
const PATIENCE_MS = 120_000;

let folder: string;
let ports: { port: number; controllerPort: number };
let broker: Broker;
let topics: Topics;
let service: Service | undefined;
let workers: WorkerProcess[] = [];
const rows: { seed: number; faults: string[]; verdict: Verdict }[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-faults-'));
  ports = { port: await freePort(), controllerPort: await freePort() };
  broker = await startBroker({ dir: join(folder, 'kafka'), ...ports });
  topics = await openTopics(broker.brokers);
});

afterEach(async () => {
  // One that is stopped, too.
  for (const worker of workers) worker.signal('SIGKILL');
  await Promise.all(workers.map(({ ended }) => ended));
  workers = [];
  await service?.close();
  service = undefined;
});

afterAll(async () => {
  await topics?.close();
  await broker?.stop('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
  const table = report();
  process.stdout.write(`${table}\n`);
  if (process.env['FAULT_REPORT']) writeFileSync(process.env['FAULT_REPORT'], `${table}\n`);
});

/** Uniform numbers in [0, 1) that depend on the seed alone (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

it.each(SEEDS)('seed %i', async (seed) => {
  const random = randomOf(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
  const [input, output] = [unique('texts'), unique('predictions')];
  await topics.create([input, output, `${input}.dlq`], 3);
  const kafka = {
    KAFKA_BROKERS: broker.brokers,
    KAFKA_GROUP_ID: unique('group'),
    KAFKA_SESSION_TIMEOUT_MS: String(SESSION_MS),
  };
  const running = (service = await startService({ ...kafka, FEWLOOP_ROLE: 'api' }));
  const definition = taskFile({ stream: { input, output } });
  await running.request('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', {
    definition,
  });
  const env: Record<string, string> = { ...running.shared, ...kafka };
  const start = (fault = '') => {
    const worker = startWorker(env, fault);
    workers.push(worker);
    void worker.ended.then(() => (workers = workers.filter((one) => one !== worker)));
    return worker;
  };
  const database = new URL(env['DATABASE_URL']!);
  const faults: Record<string, () => Promise<void>> = {
    'killed at a point': async () => {
      start(`SIGKILL:${pick(['fetch', 'begin', 'send', 'offsets', 'commit'])}:${1 + Math.floor(random() * 3)}`);
    },
    'stopped and woken': async () => {
      const worker = pick(workers);
      worker.signal('SIGSTOP');
      await sleep(SESSION_MS + 2000);
      worker.signal('SIGCONT');
    },
    joining: async () => void start(),
    leaving: async () => pick(workers).signal('SIGTERM'),
    killed: async () => pick(workers).signal('SIGKILL'),
    'broker ended': () => restart('SIGTERM'),
    'broker killed': () => restart('SIGKILL'),
    'database away': () => databaseAway(database),
    'model host killed': async () => {
      const host = pick(descendants(pick(workers).pid));
      if (host !== undefined) process.kill(host, 'SIGKILL');
    },
    // Without a second version there is nothing to go back to.
    swap: async () => void (await running.ask('mutation { rollback(task: "tiny", reason: "a fault") { version } }')),
  };

  start();
  start();
  const producing = produce(input);
  const applied: string[] = [];
  for (let i = 0; i < FAULTS_A_SEED; i++) {
    await sleep(500 + random() * 2000);
    const name = pick(Object.keys(faults));
    applied.push(name);
    if (workers.length < 2) start();
    await faults[name]!();
  }
  await producing;
  start();
  await vi.waitFor(() => expectAllCommitted(kafka.KAFKA_GROUP_ID, input), { timeout: PATIENCE_MS, interval: 500 });

  const sent = await topics.read(input, RECORDS);
  const outputs = await topics.read(output, 1);
  const client = new Client({ connectionString: database.href });
  await client.connect();
  const activations = await client.query<{ version: number }>(
    `SELECT (body->>'to')::int AS version FROM ledger_entry WHERE kind IN ('activated', 'rolled-back') ORDER BY seq`,
  );
  const kept = await client.query<{ count: number }>('SELECT count(*)::int AS count FROM stream_record');
  await client.end();
  const versions = activations.rows.map(({ version }) => version);
  const verdict = compare(sent, outputs, versions, kept.rows[0]!.count);
  rows.push({ seed, faults: applied, verdict });
  expect(verdict).toEqual({ sent: sent.length, lost: 0, duplicated: 0, outOfOrder: 0, wrongVersion: 0, history: 0 });
});

/** What cannot be sent is sent again: the input itself may hold a record twice, which is two records. */
async function produce(input: string): Promise<void> {
  for (let from = 0; from < RECORDS; from += CHUNK) {
    await vi.waitFor(() => topics.send(input, numbered(CHUNK, from)), { timeout: PATIENCE_MS, interval: 500 });
    await sleep(200);
  }
}

async function restart(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  await broker.stop(signal);
  broker = await startBroker({ dir: join(folder, 'kafka'), ...ports });
}

async function databaseAway(database: URL): Promise<void> {
  const admin = new Client({ connectionString: inject('postgresUrl') });
  await admin.connect();
  const name = database.pathname.slice(1);
  await admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
  await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [name]);
  await sleep(3000);
  await admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
  await admin.end();
}

async function expectAllCommitted(groupId: string, topic: string): Promise<void> {
  const ends = await topics.admin.fetchTopicOffsets(topic);
  const [offsets] = await topics.admin.fetchOffsets({ groupId, topics: [topic] });
  const committed = new Map(offsets!.partitions.map(({ partition, offset }) => [partition, offset]));
  expect(ends.map(({ partition }) => committed.get(partition))).toEqual(ends.map(({ high }) => high));
}

function report(): string {
  const lines = rows.map(({ seed, faults, verdict }) => {
    const { sent, lost, duplicated, outOfOrder, wrongVersion, history } = verdict;
    return `| ${seed} | ${faults.join(', ')} | ${sent} | ${lost} | ${duplicated} | ${outOfOrder} | ${wrongVersion} | ${history} |`;
  });
  const header = '| seed | faults | sent | lost | duplicated | out of order | wrong version | history off by |';
  return [header, '|---|---|---|---|---|---|---|---|', ...lines].join('\n');
}
