/** The embedded stream's statements against a table in which one task's texts wait before, and behind, all others. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DataSource } from 'typeorm';
import { connect } from '../../src/storage/database.js';
import { StreamItemsRepository } from '../../src/storage/stream-items.repository.js';
import { createDatabase } from '../fixtures/database.js';
import { explained, nodesOf, rowsRead, statementsOf } from '../fixtures/large-pool.js';

const WAITING = 200_000;
const TASKS = ['blocked', 'other', 'third'];
const BATCH = 64;
/** Of each task four batches are looked at. */
const FEW = TASKS.length * 4 * BATCH;

let database: Awaited<ReturnType<typeof createDatabase>>;
let source: DataSource;
let items: StreamItemsRepository;

beforeAll(async () => {
  database = await createDatabase();
  source = await connect(database.url);
  items = new StreamItemsRepository(source);
  for (const task of TASKS) {
    await source.query(
      `INSERT INTO task (name, kind, revision, definition, definition_digest) VALUES ($1, 'single-label', 1, '{}', '')`,
      [task],
    );
  }
  await fill('other', 'SCORED', 30_000);
  await fill('other', 'FAILED', 100);
  await fill('blocked', 'PENDING', WAITING);
  await fill('other', 'PENDING', 1_000);
  await fill('third', 'PENDING', 1_000);
  await source.query('VACUUM ANALYZE stream_item');
}, 120_000);
afterAll(async () => {
  await source?.destroy();
  await database?.drop();
});

async function fill(task: string, state: string, count: number): Promise<void> {
  await source.query(
    `INSERT INTO stream_item (task, external_id, item_key, split_group, text, state)
     SELECT $1, $2 || i, i, i, '第' || i || '条', $2 FROM generate_series(1, $3::int) AS i`,
    [task, state, count],
  );
}

/** Rows of the table that each statement reads, in order. */
async function reads(work: () => Promise<unknown>): Promise<number[]> {
  const sent = (await statementsOf(source, work)).filter(({ sql }) => sql.startsWith('SELECT'));
  const counts: number[] = [];
  for (const statement of sent) {
    const [plan] = await explained(source, 'JSON', statement);
    const scans = nodesOf(plan).filter((node) => node['Relation Name'] === 'stream_item');
    counts.push(scans.reduce((sum, scan) => sum + rowsRead(scan), 0));
  }
  return counts;
}

const claim = (except: string[], limit = BATCH) =>
  source
    .transaction((tx) => items.claim(limit, except, tx))
    .then((rows) => rows.map(({ task, externalId }) => `${task} ${externalId}`));
const names = (task: string, from: number, count: number) =>
  Array.from({ length: count }, (_, i) => `${task} PENDING${from + i}`);

describe('a claim', () => {
  it.each([
    ['of the oldest', [], names('blocked', 1, BATCH)],
    ['past a task that is left out', ['blocked'], names('other', 1, BATCH)],
    ['where all that wait are left out', TASKS, []],
  ])('%s reads a few rows', async (_, except, expected) => {
    expect(await claim(except)).toEqual(expected);
    const counts = await reads(() => claim(except));
    expect(counts.length).toBeGreaterThan(0);
    expect(Math.max(...counts)).toBeLessThanOrEqual(FEW);
  });

  it('past what others hold takes the oldest that is left, of whichever task', async () => {
    // One of the third's is older than the last of the other's, which has more than are looked at at first.
    await source.query(`INSERT INTO stream_item (task, external_id, item_key, split_group, text)
      VALUES ('other', 'last', 'last', 'last', 'last')`);
    await source.transaction(async (one) => {
      expect(await items.claim(1_000, ['blocked'], one)).toHaveLength(1_000);
      expect(await claim(['blocked'])).toEqual(names('third', 1, BATCH));
      await source.transaction(async (two) => {
        expect(await items.claim(1_000, ['blocked'], two)).toHaveLength(1_000);
        expect(await claim(['blocked'])).toEqual(['other last']);
      });
      const counts = await reads(() => claim(['blocked']));
      expect(Math.max(...counts)).toBeLessThanOrEqual(4 * FEW);
    });
  });
});

it('records that failed are found and counted without reading those that were scored', async () => {
  const counts = await reads(async () => {
    expect(await items.failed('other', 10)).toHaveLength(10);
    expect(await items.countFailed('other')).toBe(100);
  });
  expect(counts).toEqual([10, 10, 100]);
});
