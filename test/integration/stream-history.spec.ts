/** What is kept of Kafka's records whose text was forgotten meanwhile: they may have been read before, or come again. */
import type { INestApplicationContext } from '@nestjs/common';
import { rmSync } from 'node:fs';
import { Client } from 'pg';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { Prediction } from '../../src/inference/types.js';
import { ForgetService } from '../../src/learning/forget.js';
import { IngestService } from '../../src/learning/ingest.js';
import { StreamHistory, type HistoryEntry } from '../../src/learning/stream-history.js';
import { TaskService } from '../../src/learning/task-service.js';
import type { TaskDefinition } from '../../src/task/types.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile } from '../fixtures/intake.js';
import { keyed } from '../fixtures/keyed.js';
import { makeDataDir } from '../fixtures/learning.js';

const SOURCE = { clusterId: 'c', topicId: 't', topic: 'texts', partition: 0 };

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let service: INestApplicationContext;
let definition: TaskDefinition;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = makeDataDir();
  service = await startIntake({ url: database.url, dataDir, role: 'api' });
  await service.get(TaskService).apply(taskFile(), 'test');
  definition = (await service.get(TaskService).get('tiny')).definition as TaskDefinition;
});
afterEach(async () => {
  await service.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

const prediction = {
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

/** Records produced at that time, from offset 0 on. */
const entries = (timestamp: number, ...texts: string[]): HistoryEntry[] =>
  texts.map((text, offset) => {
    const place = { offset: `${offset}`, timestamp: `${timestamp}`, externalId: text };
    return { ...place, state: 'scored', definition, item: keyed(text), prediction };
  });

const keep = (list: HistoryEntry[]) => service.get(StreamHistory).keep(SOURCE, list);
const forget = (text: string) => service.get(ForgetService).forget('tiny', { text }, 'test');
const sql = <T>(query: string) => service.get(DataSource).query<T[]>(query);
const candidates = async () =>
  (await sql<{ text: string }>('SELECT text FROM candidate ORDER BY text')).map(({ text }) => text);
const records = () =>
  sql<{ id: string | null; alone: boolean }>(
    'SELECT external_id AS id, split_group IS NULL AS alone FROM stream_record ORDER BY "offset"',
  );

it('brings no text back that was forgotten since its record was produced, and counts it', async () => {
  const producedAt = Date.now() - 1000;
  await keep(entries(producedAt, '甲', '乙'));
  expect(await candidates()).toEqual(['乙', '甲']);
  await forget('甲');
  expect(await records()).toEqual([{ id: '乙', alone: false }]);
  // As after a commit that failed: the same records once more.
  for (let again = 0; again < 2; again++) {
    await keep(entries(producedAt, '甲', '乙'));
    expect(await candidates()).toEqual(['乙']);
    expect(await records()).toEqual([
      { id: null, alone: true },
      { id: '乙', alone: false },
    ]);
  }
  expect(await service.get(IngestService).stats('tiny')).toMatchObject({ scored: 2 });
  // Its place is known: another record there is a contradiction, as ever.
  await expect(keep(entries(producedAt - 1, '甲'))).rejects.toMatchObject({ code: 'CONFLICT' });
});

it('takes a text that is produced anew after it was forgotten', async () => {
  await forget('甲');
  await keep(entries(Date.now() + 1, '甲'));
  expect(await candidates()).toEqual(['甲']);
  expect(await records()).toEqual([{ id: '甲', alone: false }]);
});

it.each(['before', 'after'])('keeps nothing of a text that is forgotten just %s its record is kept', async (when) => {
  const producedAt = Date.now() - 1000;
  const acts: (() => Promise<unknown>)[] = [() => forget('甲'), () => keep(entries(producedAt, '甲'))];
  const holder = new Client({ connectionString: database.url });
  await holder.connect();
  await holder.query('BEGIN');
  await holder.query(`SELECT pg_advisory_xact_lock(hashtextextended('pool:tiny', 0))`);
  const waiting = `SELECT count(*)::int AS count FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`;
  const done: Promise<unknown>[] = [];
  for (const act of when === 'before' ? acts : acts.toReversed()) {
    done.push(act());
    await vi.waitFor(async () => expect((await holder.query(waiting)).rows).toEqual([{ count: done.length }]), 10_000);
  }
  await holder.query('COMMIT');
  await holder.end();
  await Promise.all(done);
  expect(await candidates()).toEqual([]);
  expect((await records()).filter(({ alone }) => !alone)).toEqual([]);
});
