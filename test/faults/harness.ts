/**
 * The stream with workers that come by a network and a disk of the tests, and a ledger of what was sent and what came
 * out. Workers reach the broker through a proxy; the tests themselves by a listener of their own.
 */
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, expect, vi } from 'vitest';
import { freePort, startBroker, type Broker } from '../../scripts/kafka/broker.mjs';
import { taskFile } from '../fixtures/intake.js';
import { numbered, openTopics, unique, type Topics } from '../fixtures/kafka.js';
import { startWorker, type WorkerProcess } from '../fixtures/kafka-worker.js';
import { startProxy, type Proxy } from '../fixtures/proxy.js';
import { startService, type Service } from '../fixtures/service.js';
import { mountSmallDisk, type SmallDisk } from '../fixtures/small-disk.js';
import { compare, type Verdict } from './ledger.js';

export const SESSION_MS = 2000;
const PATIENCE_MS = 180_000;
const PARTITIONS = 3;
const CHUNK_EVERY_MS = 200;
const DISK_MB = 512;

/** A broker, its disk, and the network between it and the workers. */
export class Cluster {
  private constructor(
    private readonly folder: string,
    private readonly ports: Parameters<typeof startBroker>[0],
    private broker: Broker,
    readonly network: Proxy,
    /** Where workers find the broker. */
    readonly brokers: string,
    readonly topics: Topics,
    /** Null where none can be mounted. */
    readonly disk: SmallDisk | null,
  ) {}

  static async open(): Promise<Cluster> {
    const folder = mkdtempSync(join(tmpdir(), 'fewloop-faults-'));
    const dir = join(folder, 'kafka');
    const disk = mountSmallDisk(dir, DISK_MB);
    const [port, controllerPort, proxied, advertised] = [
      await freePort(),
      await freePort(),
      await freePort(),
      await freePort(),
    ];
    const ports = { dir, port, controllerPort, proxied: { port: proxied, advertised } };
    const network = await startProxy(advertised, proxied);
    const broker = await startBroker(ports);
    const topics = await openTopics(broker.brokers);
    return new Cluster(folder, ports, broker, network, `127.0.0.1:${advertised}`, topics, disk);
  }

  async close(): Promise<void> {
    await this.topics.close();
    await this.broker.stop('SIGKILL');
    await this.network.close();
    this.disk?.unmount();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async restart(signal: 'SIGTERM' | 'SIGKILL', awayMs = 0): Promise<void> {
    await this.broker.stop(signal);
    await sleep(awayMs);
    this.broker = await startBroker(this.ports);
  }

  /**
   * A broker whose disk is full ends by itself, most often, when it has something to write. There is room again only once
   * it is gone: one that goes on behind a half-written batch loses at its next start what it has acknowledged since.
   */
  async diskFull(disk: SmallDisk, ms: number): Promise<void> {
    disk.fill();
    await Promise.race([this.broker.ended, sleep(ms)]);
    await this.broker.stop('SIGKILL');
    disk.free();
    this.broker = await startBroker(this.ports);
  }
}

/** One input topic, read by workers, from its first record to the verdict. */
export class Run {
  workers: WorkerProcess[] = [];
  #producing = true;
  #revision = 0;

  private constructor(
    readonly cluster: Cluster,
    readonly service: Service,
    readonly database: URL,
    private readonly env: Record<string, string>,
    readonly input: string,
    readonly output: string,
    private readonly changes: Record<string, unknown>,
  ) {}

  /** `further`: of the workers' environment; `changes`: of the task file. */
  static async begin(
    cluster: Cluster,
    further: Record<string, string> = {},
    changes: Record<string, unknown> = {},
  ): Promise<Run> {
    const [input, output] = [unique('texts'), unique('predictions')];
    await cluster.topics.create([input, output, `${input}.dlq`], PARTITIONS);
    const kafka = {
      KAFKA_BROKERS: cluster.brokers,
      KAFKA_GROUP_ID: unique('group'),
      KAFKA_SESSION_TIMEOUT_MS: String(SESSION_MS),
    };
    const service = await startService({ ...kafka, FEWLOOP_ROLE: 'api' });
    const env: Record<string, string> = { ...service.shared, ...kafka, ...further };
    const run = new Run(cluster, service, new URL(env['DATABASE_URL']!), env, input, output, changes);
    await run.applyTask();
    return run;
  }

  /** Each application is a further revision, and so a further version that becomes active. */
  async applyTask(): Promise<void> {
    const templates = ['很{mask}。{text}', `{text}总之很{mask}。${'！'.repeat(this.#revision++)}`];
    const definition = taskFile({ templates, stream: { input: this.input, output: this.output }, ...this.changes });
    const mutation = 'mutation ($definition: String!) { applyTask(definition: $definition) { name } }';
    const apply = () => this.service.request(mutation, { definition });
    // After a fault of the database the service may need a moment.
    await vi.waitFor(apply, { timeout: PATIENCE_MS, interval: 500 });
  }

  /** `further`: of its environment alone. */
  start(fault = '', further: Record<string, string> = {}): WorkerProcess {
    const worker = startWorker({ ...this.env, ...further }, fault);
    this.workers.push(worker);
    void worker.ended.then(() => (this.workers = this.workers.filter((one) => one !== worker)));
    return worker;
  }

  /** Until `stop`, and at least so many. What cannot be sent is sent again: a record may be there twice, as two records. */
  async produce(atLeast: number, chunk: number, everyMs = CHUNK_EVERY_MS): Promise<void> {
    const { topics } = this.cluster;
    for (let from = 0; this.#producing || from < atLeast; from += chunk) {
      const send = () => topics.send(this.input, numbered(chunk, from));
      await vi.waitFor(send, { timeout: PATIENCE_MS, interval: 500 });
      await sleep(everyMs);
    }
  }

  stopProducing(): void {
    this.#producing = false;
  }

  /** Resolves when the group has committed all that was sent. */
  async committed(patienceMs = PATIENCE_MS): Promise<void> {
    const allCommitted = () => expectAllCommitted(this.cluster.topics, this.env['KAFKA_GROUP_ID']!, this.input);
    await vi.waitFor(allCommitted, { timeout: patienceMs, interval: 500 });
  }

  /** Rows of an SQL query, in order. */
  async query<T>(sql: string): Promise<T[]> {
    const client = new Client({ connectionString: this.database.href });
    await client.connect();
    const { rows } = await client.query(sql);
    await client.end();
    return rows as T[];
  }

  async verdict(): Promise<Verdict> {
    const { topics } = this.cluster;
    await this.committed();
    const sent = await topics.read(this.input, 1);
    const outputs = await topics.read(this.output, 1);
    const activations = await this.query<{ version: number }>(
      `SELECT (body->>'to')::int AS version FROM ledger_entry WHERE kind IN ('activated', 'rolled-back') ORDER BY seq`,
    );
    const [kept] = await this.query<{ count: number }>('SELECT count(*)::int AS count FROM stream_record');
    const versions = activations.map(({ version }) => version);
    return compare(sent, outputs, versions, kept!.count);
  }

  async end(): Promise<void> {
    this.#producing = false;
    // Those that are stopped, too.
    for (const worker of this.workers) worker.signal('SIGKILL');
    await Promise.all(this.workers.map(({ ended }) => ended));
    await this.service.close();
  }
}

async function expectAllCommitted({ admin }: Topics, groupId: string, topic: string): Promise<void> {
  const ends = await admin.fetchTopicOffsets(topic);
  const [offsets] = await admin.fetchOffsets({ groupId, topics: [topic] });
  const committed = new Map(offsets!.partitions.map(({ partition, offset }) => [partition, offset]));
  expect(ends.map(({ partition }) => committed.get(partition))).toEqual(ends.map(({ high }) => high));
}

/** What every verdict has to be. */
export const CLEAN = { lost: 0, duplicated: 0, outOfOrder: 0, wrongVersion: 0, history: 0 };

/** A Markdown table of verdicts, the first column named. */
export function table(name: string, rows: { name: string; faults: string; verdict: Verdict }[]): string {
  const lines = rows.map(({ name: row, faults, verdict }) => {
    const { sent, lost, duplicated, outOfOrder, wrongVersion, history } = verdict;
    return `| ${row} | ${faults} | ${sent} | ${lost} | ${duplicated} | ${outOfOrder} | ${wrongVersion} | ${history} |`;
  });
  const header = `| ${name} | faults | sent | lost | duplicated | out of order | wrong version | history off by |`;
  return [header, '|---|---|---|---|---|---|---|---|', ...lines].join('\n');
}

/** A cluster for the tests of a file, and what ends the run of each of them; to be called at the top of the file. */
export function useCluster(): {
  cluster: () => Cluster;
  begin: (env?: Record<string, string>, changes?: Record<string, unknown>) => Promise<Run>;
} {
  let cluster: Cluster | undefined;
  let run: Run | undefined;
  beforeAll(async () => {
    cluster = await Cluster.open();
  });
  afterEach(async () => {
    await run?.end();
    run = undefined;
  });
  afterAll(() => cluster?.close());
  return { cluster: () => cluster!, begin: async (env, changes) => (run = await Run.begin(cluster!, env, changes)) };
}

/** Tells it, and adds it to the file that FAULT_REPORT names. */
export function report(text: string): void {
  process.stdout.write(`${text}\n`);
  if (process.env['FAULT_REPORT']) appendFileSync(process.env['FAULT_REPORT'], `${text}\n\n`);
}
