/**
 * Three replicas that do everything, one PostgreSQL, one Kafka: every 20 s a process of theirs ends by SIGKILL, drawn by a
 * seed, while records, requests and answers keep coming. CHAOS_MINUTES (10), CHAOS_SEED (1); FAULT_REPORT names a file
 * for the tables.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { expect, inject, it } from 'vitest';
import { freePort } from '../../scripts/kafka/broker.mjs';
import type { WorkerProcess } from '../fixtures/kafka-worker.js';
import { descendants } from '../fixtures/processes.js';
import { Callers, Labeler, type Asked } from './clients.js';
import { pick, randomOf } from './faults.js';
import { CLEAN, report, table, useCluster, type Run } from './harness.js';

const MINUTES = Number(process.env['CHAOS_MINUTES'] ?? 10);
const SEED = Number(process.env['CHAOS_SEED'] ?? 1);
const EVERY_MS = 20_000;
const REPLICAS = 3;
const CHUNK = 20;
const RESTART_MS = 1000;
const SESSION_MS = 6000;

const { begin } = useCluster();

/** One that is started again a second after it ended, as an orchestrator does. */
class Replica {
  worker: WorkerProcess;
  #kept = true;

  constructor(
    private readonly run: Run,
    readonly port: number,
  ) {
    this.worker = this.#start();
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/graphql`;
  }

  let(): void {
    this.#kept = false;
  }

  #start(): WorkerProcess {
    const worker = this.run.start('', { PORT: String(this.port), FEWLOOP_ROLE: 'all' });
    void this.#startAgain(worker.ended);
    return worker;
  }

  async #startAgain(ended: Promise<unknown>): Promise<void> {
    await ended;
    await sleep(RESTART_MS);
    if (this.#kept) this.worker = this.#start();
  }
}

interface Victim {
  name: string;
  kill: () => Promise<void>;
}

/** All that runs now, each as likely. */
async function victims(run: Run, replicas: Replica[]): Promise<Victim[]> {
  const postgres = await postmaster();
  return [
    ...replicas.map(({ worker }) => ({ name: 'replica', kill: async () => worker.signal('SIGKILL') })),
    ...replicas.flatMap(({ worker }) =>
      descendants(worker.pid).map((pid) => ({
        name: 'model host',
        kill: async () => void process.kill(pid, 'SIGKILL'),
      })),
    ),
    { name: 'PostgreSQL', kill: async () => void process.kill(postgres, 'SIGKILL') },
    { name: 'Kafka', kill: () => run.cluster.restart('SIGKILL') },
  ];
}

/** Its number changes with each start. */
async function postmaster(): Promise<number> {
  const client = new Client({ connectionString: inject('postgresUrl') });
  await client.connect();
  const { rows } = await client.query<{ data_directory: string }>('SHOW data_directory');
  await client.end();
  return Number(readFileSync(join(rows[0]!.data_directory, 'postmaster.pid'), 'utf8').split('\n')[0]);
}

it(
  `seed ${SEED}: ${MINUTES} minutes`,
  async () => {
    const random = randomOf(SEED);
    const settings = { KAFKA_SESSION_TIMEOUT_MS: String(SESSION_MS) };
    const run = await begin(settings, { learning: { trigger: { newLabels: null, schedule: null } } });
    const ports = await Promise.all(Array.from({ length: REPLICAS }, () => freePort()));
    const replicas = ports.map((port) => new Replica(run, port));
    await Promise.all(replicas.map(({ worker }) => worker.printed('ready ')));
    const producing = run.produce(0, CHUNK);
    const urls = replicas.map(({ url }) => url);
    const labeler = new Labeler(urls, 'tiny');
    const callers = new Callers(urls, 'tiny');
    const kills: { atMs: number; name: string }[] = [];
    const begunMs = Date.now();
    for (let at = EVERY_MS; at <= MINUTES * 60_000; at += EVERY_MS) {
      await sleep(begunMs + at - Date.now());
      const victim = pick(await victims(run, replicas), random);
      kills.push({ atMs: Date.now(), name: victim.name });
      await victim.kill();
    }
    await sleep(EVERY_MS);
    await Promise.all([callers.stop(), labeler.stop()]);
    run.stopProducing();
    await producing;
    const verdict = await run.verdict();
    for (const replica of replicas) replica.let();
    const answers = await run.query<{ candidate: string; count: number }>(
      'SELECT candidate, count(*)::int AS count FROM answer WHERE undone_at IS NULL GROUP BY candidate',
    );
    const kept = new Map(answers.map(({ candidate, count }) => [candidate, count]));
    const gone = labeler.acknowledged.filter((id) => !kept.has(id)).length;
    const twice = answers.filter(({ count }) => count > 1).length;

    report(table('seed', [{ name: String(SEED), faults: `${kills.length} processes killed`, verdict }]));
    report(`Answers acknowledged: ${labeler.acknowledged.length}; gone: ${gone}; counted twice: ${twice}.`);
    report(availability(callers.asked, kills));
    expect(verdict).toMatchObject(CLEAN);
    expect(labeler.acknowledged.length).toBeGreaterThan(0);
    expect({ gone, twice }).toEqual({ gone: 0, twice: 0 });
  },
  (MINUTES + 6) * 60_000,
);

/** Of what was asked within the 20 s after each kind of kill, and of all. */
function availability(asked: Asked[], kills: { atMs: number; name: string }[]): string {
  const kinds = Map.groupBy(kills, ({ name }) => name);
  const rows = [...kinds]
    .toSorted(([a], [b]) => a.localeCompare(b))
    .map(([name, own]) => {
      const after = asked.filter(({ atMs }) => own.some((kill) => atMs >= kill.atMs && atMs < kill.atMs + EVERY_MS));
      return row(name, own.length, after);
    });
  return [
    '| killed | times | requests | answered at the first try | with further tries | longest wait of an answered one, s |',
    '|---|---|---|---|---|---|',
    ...rows,
    row(`all ${MINUTES} minutes`, kills.length, asked),
  ].join('\n');
}

function row(name: string, times: number, asked: Asked[]): string {
  const share = (of: (one: Asked) => boolean) => `${((asked.filter(of).length / asked.length) * 100).toFixed(2)} %`;
  const longestMs = Math.max(0, ...asked.filter(({ answered }) => answered).map(({ latencyMs }) => latencyMs));
  const shares = `${share(({ first }) => first)} | ${share(({ answered }) => answered)}`;
  return `| ${name} | ${times} | ${asked.length} | ${shares} | ${(longestMs / 1000).toFixed(1)} |`;
}
