/**
 * Every process killed while it works: model host, database, trainer, the service itself. What was accepted is there
 * afterwards, once; what can answer meanwhile answers; nothing outlives the service. The steps follow each other.
 */
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { GraphqlAnswer } from '../fixtures/graphql.js';
import { Load } from '../fixtures/load.js';
import { isAlive, until } from '../fixtures/processes.js';
import { makeDataDir, startServiceProcess, type ServiceProcess } from '../fixtures/service-process.js';

const TASK = `name: reviews
kind: single-label
labels: [{name: positive, words: [好]}, {name: negative, words: [差]}]
templates: ["这是一条{mask}评。{text}", "{text} 总之很{mask}。"]
maxLength: 32
learning: {budgetSeconds: 10, trigger: {newLabels: null, schedule: null}}
`;
const ASKED = ['味道很好，下次还来', '太差了，等了一个小时', '一般吧', '房间干净，服务热情'];
const INGEST = `mutation ($inputs: [TextInput!]!) {
  ingest(task: "reviews", inputs: $inputs) { accepted duplicates }
}`;
const POOL = '{ task(name: "reviews") { pool { total } } }';
const CHUNK = 25;
/** For whatever is waited for, on a machine that does much else. */
const PATIENCE_MS = 300_000;

interface Ingested {
  accepted: number;
  duplicates: number;
}

let dataDir: string;
let service: ServiceProcess;
/** Different texts that were ingested so far. */
let ingested = 0;

beforeAll(async () => {
  dataDir = makeDataDir();
  service = await startServiceProcess(dataDir);
  const apply = 'mutation ($definition: String!) { applyTask(definition: $definition) { name } }';
  await service.request(apply, { definition: TASK });
});

afterAll(async () => {
  await service?.kill();
  rmSync(dataDir, { recursive: true, force: true });
});

const askIngest = (inputs: { id: string; text: string }[]): Promise<GraphqlAnswer> => service.ask(INGEST, { inputs });

async function query<T>(sql: string): Promise<T[]> {
  const client = new Client({ connectionString: service.databaseUrl });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows as T[];
  } finally {
    await client.end();
  }
}

/** Waits until all texts are scored; each once, and each once in the pool: before calibration all are for review. */
async function expectAllScoredOnce(): Promise<void> {
  const count = async () =>
    query('SELECT state, attempts, count(*)::int FROM stream_item GROUP BY state, attempts ORDER BY 1, 2');
  await expect.poll(count, { timeout: PATIENCE_MS }).toEqual([{ state: 'SCORED', attempts: 1, count: ingested }]);
  expect(await service.request(POOL)).toEqual({ task: { pool: { total: ingested } } });
}

it('a killed model host is replaced, and its requests are answered', async () => {
  const load = new Load(service, 'reviews', ASKED);
  for (let kills = 0; kills < 3; kills++) {
    await load.more(30);
    const [host] = service.processes('host.js');
    process.kill(host!, 'SIGKILL');
    await until(() => service.processes('host.js').some((pid) => pid !== host), PATIENCE_MS);
  }
  await load.more(30);
  await load.stop();
  expect(load.failures).toEqual([]);
});

describe('a database that ends', () => {
  it.each(['SIGKILL', 'SIGINT'] as const)('by %s: models answer, the rest says when to ask again', async (signal) => {
    const load = new Load(service, 'reviews', ASKED);
    await load.more(10);
    const [postgres] = service.processes(join(dataDir, 'postgres'));
    process.kill(postgres!, signal);
    await until(() => !isAlive(postgres!), PATIENCE_MS);
    const refusals: GraphqlAnswer[] = [];
    const input = { id: signal, text: `数据库 ${signal}` };
    // As callers do that are told to ask again: with the same id.
    for (;;) {
      const answer = await askIngest([input]);
      if (!answer.errors) break;
      refusals.push(answer);
      expect(refusals.length).toBeLessThan(200);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    ingested += 1;
    await load.more(10);
    await load.stop();

    expect(load.failures).toEqual([]);
    expect(refusals.length).toBeGreaterThan(0);
    for (const { errors } of refusals) {
      expect(errors).toMatchObject([{ extensions: { code: 'OVERLOADED', retryAfterMs: expect.any(Number) } }]);
    }
    await expectAllScoredOnce();
  });
});

describe('the service killed', () => {
  it('during a run, and its trainer before it: the run goes on where it was, to one version', async () => {
    const goods = ['手机', '衣服', '水果', '酒店', '书', '电脑', '洗发水', '平板'];
    const examples = goods.flatMap((name) => [
      { text: `${name}很好，满意`, labels: ['positive'], split: 'TRAIN' },
      { text: `${name}太差了，失望`, labels: ['negative'], split: 'TRAIN' },
    ]);
    const add =
      'mutation ($examples: [ExampleInput!]!) { importExamples(task: "reviews", examples: $examples) { added } }';
    await service.request(add, { examples });
    const { startRetrain } = await service.request<{ startRetrain: { id: string } }>(
      'mutation { startRetrain(task: "reviews") { id } }',
    );
    const { id } = startRetrain;
    const work = join(dataDir, 'runs', 'reviews', id, 'work');

    await until(() => finished(work).size >= 2, PATIENCE_MS);
    const [trainer] = service.processes('fewloop_trainer');
    process.kill(trainer!, 'SIGKILL');
    await until(() => !isAlive(trainer!), PATIENCE_MS);
    const byFirst = finished(work);

    await until(() => finished(work).size > byFirst.size, PATIENCE_MS);
    expect(service.processes('fewloop_trainer')).not.toContain(trainer);
    await service.kill();
    const bySecond = finished(work);
    expect([...bySecond]).toEqual(expect.arrayContaining([...byFirst]));

    service = await startServiceProcess(dataDir);
    const run = async () =>
      (
        await service.request<{ trainingRun: { state: string } }>(
          `{ trainingRun(id: "${id}") { state error produced { version } } }`,
        )
      ).trainingRun;
    await expect.poll(async () => (await run()).state, { timeout: PATIENCE_MS, interval: 500 }).toMatch(/^[^QR]/u);
    expect(await run()).toMatchObject({ state: 'SUCCEEDED', error: null });
    expect([...finished(work)]).toEqual(expect.arrayContaining([...bySecond]));
    expect(await query(`SELECT count(*)::int FROM model_version WHERE run_id = '${id}'`)).toEqual([{ count: 1 }]);
    expect(await query('SELECT count(*)::int FROM promotion')).toEqual([{ count: 1 }]);
    expect(await query('SELECT count(*)::int FROM example')).toEqual([{ count: examples.length }]);
  });

  it('while texts come in: what was accepted is there, once', async () => {
    const chunks = Array.from({ length: 60 }, (_, chunk) =>
      Array.from({ length: CHUNK }, (_, i) => ({ id: `${chunk}-${i}`, text: `第${chunk}批，第${i}条` })),
    );
    const accepted = new Set<number>();
    const waiting = [...chunks.keys()];
    const client = async () => {
      for (let chunk = waiting.shift(); chunk !== undefined; chunk = waiting.shift()) {
        const { data } = await askIngest(chunks[chunk]!);
        if (data) accepted.add(chunk);
      }
    };
    const clients = Promise.allSettled([client(), client(), client()]);
    await until(() => accepted.size >= 20, PATIENCE_MS);
    await service.kill();
    await clients;
    expect(accepted.size).toBeLessThan(chunks.length);

    service = await startServiceProcess(dataDir);
    const again = new Map<number, Ingested>();
    for (const [chunk, inputs] of chunks.entries()) {
      again.set(chunk, (await service.request<{ ingest: Ingested }>(INGEST, { inputs })).ingest);
    }
    expect([...again.values()].every((each) => each.accepted + each.duplicates === CHUNK)).toBe(true);
    expect([...accepted].map((chunk) => again.get(chunk)!.accepted)).toEqual(Array(accepted.size).fill(0));
    ingested += chunks.length * CHUNK;
    await expectAllScoredOnce();
  });
});

it('ends when it is asked to, and leaves no process', async () => {
  expect(await service.end()).toBe(0);
});

/** What the run's stages have finished, each with its time: a stage that is done again is another entry. */
function finished(work: string): Set<string> {
  try {
    const files = readdirSync(work).filter((name) => /^[^.]+\.(fold\d\.)?(npz|safetensors)$/u.test(name));
    return new Set(files.map((name) => `${name} ${statSync(join(work, name)).mtimeMs}`));
  } catch {
    return new Set();
  }
}
