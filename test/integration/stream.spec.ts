/** The embedded stream: what is accepted is scored once, whatever ends in between. */
import type { INestApplicationContext } from '@nestjs/common';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { InferenceEngine } from '../../src/inference/engine.js';
import { LearningEvents, type PredictionEvent } from '../../src/learning/events.js';
import { IngestService } from '../../src/learning/ingest.js';
import { PoolService } from '../../src/learning/pool.js';
import { DEAD_LETTERS, type DeadLetters } from '../../src/learning/stream-ports.js';
import { TaskService } from '../../src/learning/task-service.js';
import { StreamItemsRepository } from '../../src/storage/stream-items.repository.js';
import { VersionsRepository } from '../../src/storage/versions.repository.js';
import { parseTask } from '../../src/task/definition.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile, texts } from '../fixtures/intake.js';
import { keyed } from '../fixtures/keyed.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let services: INestApplicationContext[];

beforeEach(async () => {
  database = await createDatabase();
  dataDir = mkdtempSync(join(tmpdir(), 'fewloop-stream-'));
  services = [];
});
afterEach(async () => {
  await Promise.all(services.map((service) => service.close()));
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

async function start(role: 'all' | 'api' = 'all'): Promise<INestApplicationContext> {
  const service = await startIntake({ url: database.url, dataDir, role });
  services.push(service);
  return service;
}

async function stop(service: INestApplicationContext): Promise<void> {
  services = services.filter((one) => one !== service);
  await service.close();
}

const states = async (service: INestApplicationContext) => {
  const items = service.get(StreamItemsRepository);
  return { PENDING: await items.countPending('tiny'), ...(await items.countDone('tiny')) };
};

function scored(service: INestApplicationContext, count: number): Promise<void> {
  return vi.waitFor(async () => expect((await states(service)).SCORED).toBe(count), { timeout: 30_000, interval: 50 });
}

describe('the embedded stream', () => {
  it('takes the same texts from two clients at once, in any order', async () => {
    const service = await start('api');
    await service.get(TaskService).apply(taskFile(), 'test');
    const items = service.get(StreamItemsRepository);
    const item = (id: string) => ({ ...keyed(id), externalId: id, metadata: null });
    const insert = (...ids: string[]) => items.insert('tiny', ids.map(item));
    // Somebody has the one in the middle until both have come to it, or to each other.
    const holder = new Client({ connectionString: database.url });
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query(
      `INSERT INTO stream_item (task, external_id, item_key, split_group, text) VALUES ('tiny', 'b', '', '', 'b')`,
    );
    const both = Promise.all([insert('a', 'b', 'c'), insert('c', 'b', 'a')]);
    const waiting = `SELECT count(*)::int FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock'`;
    await vi.waitFor(async () => expect((await holder.query(waiting)).rows).toEqual([{ count: 2 }]), 10_000);
    await holder.query('ROLLBACK');
    await holder.end();
    const accepted = await both;
    expect(accepted.toSorted()).toEqual([0, 3]);
  });

  it('scores what is ingested, fills the pool and shows a sample; an id counts once', async () => {
    const service = await start();
    await service.get(TaskService).apply(taskFile(), 'test');
    const seen: PredictionEvent[] = [];
    service.get(LearningEvents).predictions$.subscribe((event) => seen.push(event));
    const inputs = texts(150).map((text, i) => ({ id: `r${i}`, text }));
    const ingest = service.get(IngestService);
    expect(await ingest.ingest('tiny', [...inputs, inputs[0]!])).toEqual({
      accepted: 150,
      duplicates: 1,
      rejected: [],
    });
    await scored(service, 150);
    expect(await ingest.ingest('tiny', inputs)).toEqual({ accepted: 0, duplicates: 150, rejected: [] });
    const row = await service.get(StreamItemsRepository).findByExternalId('tiny', 'r7');
    expect(row).toMatchObject({ state: 'SCORED', modelVersion: 1, attempts: 1, errorCode: null });
    expect(row?.prediction).toMatchObject({ modelVersion: 1, taskRevision: 1, calibrated: false });
    const pool = await service.get(PoolService).stats('tiny');
    expect(pool).toMatchObject({ total: 150, awaitingReview: 150, labelled: 0, pseudoLabelled: 0 });
    expect(seen.length).toBeGreaterThan(0);
    expect(seen[0]).toMatchObject({ task: 'tiny', id: expect.stringMatching(/^r\d+$/) as string });
  });

  it('shows a sample in other processes too, however many labels and members there are', async () => {
    const [one, two] = [await start('api'), await start('api')];
    const seen: PredictionEvent[] = [];
    two.get(LearningEvents).predictions$.subscribe((event) => seen.push(event));
    const distribution = Array.from({ length: 1000 }, (_, i) => ({ label: `标签${i}`, probability: 1 / (i + 3) }));
    const [label] = distribution.map((score) => score.label);
    const member = { member: 'm', weight: 1, label: label!, labels: [label!], distribution };
    const scores = { label: label!, labels: [label!], confidence: 1 / 3, calibrated: true, margin: 0.1, entropy: 0.9 };
    const origin = { disagreement: null, route: 'REVIEW', modelVersion: 1, taskRevision: 1 } as const;
    const prediction = { ...scores, ...origin, distribution, members: [member, member] };
    // Until it listens.
    const told = () => {
      one.get(LearningEvents).predicted({ task: 'tiny', id: 'r1', prediction });
      expect(seen.length).toBeGreaterThan(0);
    };
    await vi.waitFor(told, { timeout: 10_000, interval: 100 });
    expect(seen[0]).toEqual({ task: 'tiny', id: 'r1', prediction: { ...prediction, members: [] } });
  });

  it('refuses bad texts one by one and takes the rest', async () => {
    const service = await start('api');
    await service.get(TaskService).apply(taskFile(), 'test');
    const bad = ['', '  \n', '很'.repeat(20_001), 'half \ud83d of a pair', 'nul \0'];
    const result = await service.get(IngestService).ingest(
      'tiny',
      ['好', ...bad, '😀 emoji', 'english', '\u0007bell', '行\u2028分'].map((text) => ({ text })),
    );
    expect(result).toMatchObject({ accepted: 5, duplicates: 0 });
    expect(result.rejected.map(({ index, code }) => [index, code])).toEqual(
      [1, 2, 3, 4, 5].map((i) => [i, 'BAD_INPUT']),
    );
    await expect(service.get(IngestService).ingest('nope', [])).rejects.toMatchObject({ code: 'TASK_NOT_FOUND' });
    const wrong = [{ text: 7 }, { text: '好', choices: ['a', 'b'] }, { text: '好', id: '' }] as never;
    expect((await service.get(IngestService).ingest('tiny', wrong)).rejected).toHaveLength(3);
  });

  it('goes on where another process stopped', async () => {
    const first = await start('api');
    await first.get(TaskService).apply(taskFile(), 'test');
    await first.get(IngestService).ingest(
      'tiny',
      texts(100).map((text) => ({ text })),
    );
    await stop(first);
    const second = await start();
    await scored(second, 100);
    expect((await second.get(PoolService).stats('tiny')).total).toBe(100);
  });

  it('two workers share the work and nothing is scored into the pool twice', async () => {
    const one = await start();
    await one.get(TaskService).apply(taskFile(), 'test');
    const two = await start();
    await one.get(IngestService).ingest(
      'tiny',
      texts(600).map((text) => ({ text })),
    );
    await scored(two, 600);
    const rows = await one.get(DataSource).query('SELECT max(attempts) AS most FROM stream_item');
    expect(rows).toEqual([{ most: 1 }]);
  });

  it('comes back when its connections to the database are cut', async () => {
    const service = await start();
    await service.get(TaskService).apply(taskFile(), 'test');
    const ingest = service.get(IngestService);
    await ingest.ingest(
      'tiny',
      texts(300).map((text) => ({ text })),
    );
    const client = new Client({ connectionString: database.url });
    await client.connect();
    const cut = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid()`;
    for (let i = 0; i < 3; i++) {
      await client.query(cut);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await client.end();
    await scored(service, 300);
    await vi.waitFor(
      () =>
        ingest.ingest(
          'tiny',
          texts(10, '后来').map((text) => ({ text })),
        ),
      { timeout: 10_000 },
    );
    await scored(service, 310);
    expect(await states(service)).toEqual({ PENDING: 0, SCORED: 310, FAILED: 0 });
  });

  it('a text that a model host cannot take does not hold up the others', async () => {
    const service = await start('api');
    await service.get(TaskService).apply(taskFile(), 'test');
    await service.get(IngestService).ingest(
      'tiny',
      [...texts(20), '毒'].map((text) => ({ text })),
    );
    const engine = service.get(InferenceEngine);
    const classify = engine.classify.bind(engine);
    vi.spyOn(InferenceEngine.prototype, 'classify').mockImplementation(async (model, request) => {
      if (request.items.some(({ text }) => text === '毒')) throw new Error('the host died twice');
      return classify(model, request);
    });
    const worker = await start();
    await scored(worker, 20);
    expect(await states(worker)).toMatchObject({ PENDING: 1 });
    await worker.get(DataSource).query(`UPDATE stream_item SET attempts = 4, retry_at = NULL WHERE state = 'PENDING'`);
    await vi.waitFor(async () => expect(await states(worker)).toEqual({ PENDING: 0, SCORED: 20, FAILED: 1 }), 15_000);
    vi.restoreAllMocks();

    const dead = worker.get<DeadLetters>(DEAD_LETTERS);
    const definition = parseTask(taskFile());
    const { letters, total } = await dead.list(definition, 10);
    expect([total, letters.map(({ code, value }) => [code, (JSON.parse(value!) as { text: string }).text])]).toEqual([
      1,
      [['INTERNAL', '毒']],
    ]);
    expect(await dead.replay(definition, 10)).toBe(1);
    await scored(worker, 21);
    await worker.get(DataSource).query(`UPDATE stream_item SET state = 'FAILED' WHERE text = '毒'`);
    expect(await dead.drop(definition, 10)).toBe(1);
    expect(await states(worker)).toEqual({ PENDING: 0, SCORED: 20, FAILED: 0 });
  });

  it('matches the priors again once there are enough texts, and brings the pool up to the new version', async () => {
    const service = await start();
    await service.get(TaskService).apply(taskFile(), 'test');
    await service.get(IngestService).ingest(
      'tiny',
      texts(400).map((text) => ({ text })),
    );
    await scored(service, 400);
    await vi.waitFor(async () => expect((await service.get(TaskService).get('tiny')).activeVersion).toBe(2), 20_000);
    const version = await service.get(VersionsRepository).find('tiny', 2);
    expect(version?.report).toMatchObject({ priorFrom: 'texts' });
    await vi.waitFor(async () => {
      const rows = await service.get(DataSource).query('SELECT DISTINCT model_version FROM candidate');
      expect(rows).toEqual([{ model_version: 2 }]);
    }, 20_000);
  });
});
