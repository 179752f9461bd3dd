/** What is erased by age and number, on a real database. */
import type { INestApplicationContext } from '@nestjs/common';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { Environment } from '../../src/config/environment.js';
import type { Prediction } from '../../src/inference/types.js';
import { dataDigest } from '../../src/launch/run-folder.js';
import { IngestService } from '../../src/learning/ingest.js';
import { PoolService } from '../../src/learning/pool.js';
import { RetentionService } from '../../src/learning/retention.js';
import { ReviewService } from '../../src/learning/review.js';
import { TaskService } from '../../src/learning/task-service.js';
import { splitGroup, splitOf } from '../../src/task/keys.js';
import type { TaskDefinition } from '../../src/task/types.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile } from '../fixtures/intake.js';
import { makeDataDir } from '../fixtures/learning.js';
import { keyed } from '../fixtures/keyed.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let service: INestApplicationContext;
let retention: RetentionService;

const sql = <T>(query: string, values: unknown[] = []) => service.get(DataSource).query<T[]>(query, values);
const texts = async (table: string) =>
  (await sql<{ text: string }>(`SELECT text FROM ${table} ORDER BY text`)).map(({ text }) => text);

async function start(more: Partial<Environment> = {}): Promise<void> {
  service = await startIntake({ url: database.url, dataDir, role: 'api', kafka: more });
  retention = service.get(RetentionService);
}

beforeEach(async () => {
  database = await createDatabase();
  dataDir = makeDataDir();
  await start();
  await service.get(TaskService).apply(taskFile({ retention: { days: 30 } }), 'test');
});
afterEach(async () => {
  await service.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

const doubtful = {
  label: 'positive',
  labels: ['positive'],
  confidence: 0.6,
  margin: 0.2,
  entropy: 0.9,
  disagreement: null,
  distribution: [],
  members: [],
  route: 'REVIEW',
  modelVersion: 1,
} as unknown as Prediction;

const age = (table: string, column: string, days: number, where: string) =>
  sql(`UPDATE ${table} SET ${column} = now() - $1 * interval '1 day' WHERE ${where}`, [days]);

/** A run of that long ago, its two files in its folder; returns how to read them, null where one is gone. */
async function addRun(
  state: 'SUCCEEDED' | 'RUNNING',
  daysAgo: number,
  { unlabelled = 'x', began = unlabelled }: { unlabelled?: string; began?: string } = {},
): Promise<(name: string) => string | null> {
  const id = crypto.randomUUID();
  const finishedAt = state === 'RUNNING' ? null : new Date(Date.now() - daysAgo * 86_400_000);
  await sql(`INSERT INTO training_run (id, task, trigger, state, finished_at) VALUES ($1, 'tiny', 'MANUAL', $2, $3)`, [
    id,
    state,
    finishedAt,
  ]);
  const folder = join(dataDir, 'runs', 'tiny', id);
  mkdirSync(folder, { recursive: true });
  const write = (name: string, lines: string) => writeFileSync(join(folder, `${name}.jsonl`), lines);
  write('labelled', 'x');
  write('unlabelled', began);
  await sql('UPDATE training_run SET data_digest = $2 WHERE id = $1', [id, await dataDigest(folder)]);
  write('unlabelled', unlabelled);
  return (name) => {
    const file = join(folder, `${name}.jsonl`);
    return existsSync(file) ? readFileSync(file, 'utf8') : null;
  };
}

it('erases texts that nobody labelled after their days, wherever they are, and no others', async () => {
  const definition = (await service.get(TaskService).get('tiny')).definition as TaskDefinition;
  const named = ['甲很好吃', '乙很难吃', '丙还可以吧', '丁不错的', '戊太差了'];
  const admitted = named.map((text) => ({ item: keyed(text), prediction: doubtful }));
  await service.get(PoolService).admit(definition, admitted);
  const questions = (await service.get(ReviewService).queue('tiny', { first: 10 })).edges.map(({ node }) => node);
  const answered = questions[0]!;
  await service.get(ReviewService).label(answered.id, ['positive'], 'ann');
  await age('candidate', 'received_at', 31, `text <> '丁不错的'`);
  await service.get(IngestService).ingest(
    'tiny',
    ['老的', '新的', '等着的', '坏的'].map((text) => ({ text })),
  );
  await sql(`UPDATE stream_item SET state = 'SCORED', scored_at = now() WHERE text IN ('老的', '新的')`);
  await sql(`UPDATE stream_item SET state = 'FAILED' WHERE text = '坏的'`);
  await age('stream_item', 'scored_at', 31, `text = '老的'`);
  await age('stream_item', 'received_at', 31, `text IN ('坏的', '等着的')`);
  const ended = await addRun('SUCCEEDED', 31);
  const running = await addRun('RUNNING', 31);

  const { streamItems, candidates, runs } = await retention.erase('tiny', 30);
  expect({ streamItems, runs }).toEqual({ streamItems: 2, runs: 1 });
  expect(await texts('stream_item')).toEqual(['新的', '等着的'].toSorted());
  expect(new Set(await texts('candidate'))).toEqual(new Set(['丁不错的', answered.text]));
  expect(candidates).toBe(admitted.length - new Set(['丁不错的', answered.text]).size);
  expect(await texts('example')).toEqual([answered.text]);
  expect([ended('unlabelled'), ended('labelled')]).toEqual([null, 'x']);
  expect([running('unlabelled'), running('labelled')]).toEqual(['x', 'x']);
  // What was counted stays counted, and a second look finds nothing more.
  expect(await service.get(IngestService).stats('tiny')).toEqual({ pending: 1, scored: 2, failed: 1 });
  expect(await retention.erase('tiny', 30)).toEqual({ streamItems: 0, candidates: 0, runs: 0 });
  const files = readdirSync(join(dataDir, 'runs', 'tiny'), { recursive: true, encoding: 'utf8' });
  expect(files.filter((name) => name.includes('partial'))).toEqual([]);
});

it('an empty file goes where its lines alone were erased, and stays where it never had any', async () => {
  const emptied = await addRun('SUCCEEDED', 31, { unlabelled: '', began: 'x' });
  const never = await addRun('SUCCEEDED', 31, { unlabelled: '' });
  expect(await retention.erase('tiny', 30)).toMatchObject({ runs: 1 });
  expect([emptied('unlabelled'), never('unlabelled')]).toEqual([null, '']);
  expect(await retention.erase('tiny', 30)).toMatchObject({ runs: 0 });
});

it('two processes of one volume erase at the same time', async () => {
  const runs: ((name: string) => string | null)[] = [];
  for (let i = 0; i < 20; i++) runs.push(await addRun('SUCCEEDED', 31));
  await Promise.all([retention.erase('tiny', 30), retention.erase('tiny', 30)]);
  expect(runs.map((run) => run('unlabelled'))).toEqual(runs.map(() => null));
});

it('opens what the first of answers that differ had closed, where that is erased and the younger are not', async () => {
  await service
    .get(TaskService)
    .apply(
      taskFile({ retention: { days: 30 }, learning: { agreement: { share: 1 } }, pool: { auditRate: 0 } }),
      'test',
    );
  const definition = (await service.get(TaskService).get('tiny')).definition as TaskDefinition;
  const base = '这家店的东西质量很好，发货也很快，包装完整，客服态度不错，下次还会再来购买，推荐给大家';
  const twins = Array.from({ length: 40 }, (_, i) => `${base}${String.fromCharCode(0x4e00 + i)}`)
    .filter((text) => splitOf(splitGroup(text)) === 'train')
    .slice(0, 3);
  await service.get(PoolService).admit(
    definition,
    twins.map((text) => ({ item: keyed(text), prediction: doubtful })),
  );
  const review = service.get(ReviewService);
  const [question] = (await review.queue('tiny', { first: 1 })).edges.map(({ node }) => node);
  await review.label(question!.id, ['positive'], 'ann');
  await review.label(question!.id, ['negative'], 'ben');
  const younger = twins.findLast((text) => text !== question!.text)!;
  await age('candidate', 'received_at', 31, `text <> '${younger}'`);
  expect(await retention.erase('tiny', 30)).toMatchObject({ candidates: 2 });
  expect(await sql('SELECT text, state, labels, served_by FROM candidate')).toEqual([
    { text: younger, state: 'OPEN', labels: null, served_by: null },
  ]);
});

it('a trainer by itself erases the texts of its runs', async () => {
  const old = await addRun('SUCCEEDED', 31);
  const recent = await addRun('SUCCEEDED', 29);
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  try {
    const trainer = await startIntake({ url: database.url, dataDir, role: 'trainer' });
    vi.advanceTimersByTime(14 * 60_000);
    expect(old('unlabelled')).toBe('x');
    vi.advanceTimersByTime(60_000);
    // It ends what it has begun.
    await trainer.close();
  } finally {
    vi.useRealTimers();
  }
  expect([old('unlabelled'), old('labelled'), recent('unlabelled')]).toEqual([null, 'x', 'x']);
});

it('keeps the history of the stream by number, newest first, past rows that somebody holds', async () => {
  await service.close();
  await start({ historyRecords: 100, historyDays: 0 });
  const inputs = Array.from({ length: 1200 }, (_, i) => ({ id: `${i}`, text: `第${i}条` }));
  for (const from of [0, 600]) await service.get(IngestService).ingest('tiny', inputs.slice(from, from + 600));
  await sql(`UPDATE stream_item SET state = 'SCORED', scored_at = now()`);
  const holder = service.get(DataSource).createQueryRunner();
  await holder.startTransaction();
  await holder.query(`SELECT 1 FROM stream_item WHERE external_id = '3' FOR UPDATE`);
  expect(await retention.erase('tiny', null)).toMatchObject({ streamItems: 1099 });
  await holder.rollbackTransaction();
  await holder.release();
  const kept = (await sql<{ id: string }>('SELECT external_id AS id FROM stream_item ORDER BY seq')).map(
    ({ id }) => id,
  );
  expect(kept).toEqual(['3', ...inputs.slice(1100).map(({ id }) => id)]);
  expect(await service.get(IngestService).stats('tiny')).toMatchObject({ scored: 1200 });
  expect(await retention.erase('tiny', null)).toMatchObject({ streamItems: 1 });
});
