/**
 * The rule of docs/operations/upgrade.md, held to the catalog of a real PostgreSQL: while replicas are replaced one by
 * one, the release before reads and writes what a migration has already changed. So a migration may add, and take away
 * nothing that the release before uses; and each goes down to what was there.
 */
import { randomUUID } from 'node:crypto';
import { DataSource, type MigrationInterface } from 'typeorm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AnswersTidied1795890000000 } from '../../migrations/1795890000000-answers-tidied.js';
import { dataSourceOptions } from '../../src/storage/data-source.js';
import { createDatabase } from '../fixtures/database.js';

interface Column {
  type: string;
  nullable: boolean;
  /** An insert may leave it out. */
  optional: boolean;
}

interface Schema {
  /** By `table.column`. */
  columns: Record<string, Column>;
  /** Constraints (checks, keys, references), unique indexes and triggers, which may refuse a write; by `table.name`. */
  refusals: Record<string, string>;
  indexes: string[];
  functions: string[];
}

/** Before the first release, and so before there was one to go back to. */
const BEFORE_FIRST_RELEASE: Record<string, string[]> = {
  Asking1795710000000: ['candidate.near_group must be given'],
  // On a column of its own that is null where the release before writes.
  Knowing1795720000000: ['training_run.training_run_due_idx may refuse what was taken'],
};

const migrations = dataSourceOptions('postgres://unused').migrations as (new () => MigrationInterface & {
  name: string;
})[];
const inOrder = migrations.map((Migration) => new Migration()).toSorted((a, b) => timeOf(a.name) - timeOf(b.name));

let database: Awaited<ReturnType<typeof createDatabase>>;
let source: DataSource;

beforeAll(async () => {
  database = await createDatabase();
  source = await new DataSource(dataSourceOptions(database.url)).initialize();
});
afterAll(async () => {
  await source?.destroy();
  await database?.drop();
});

describe.each(inOrder)('$name', (migration) => {
  it('takes nothing away that the release before uses, and goes down to what was there', async () => {
    const before = await schema();
    await apply(migration, 'up');
    const after = await schema();
    expect(incompatible(before, after)).toEqual(BEFORE_FIRST_RELEASE[migration.name] ?? []);
    await apply(migration, 'down');
    expect(await schema()).toEqual(before);
    await apply(migration, 'up');
    expect(await schema()).toEqual(after);
  });
});

describe('what the rule refuses', () => {
  it.each([
    ['a column dropped', 'ALTER TABLE task DROP kind', 'task.kind is gone'],
    ['a column renamed', 'ALTER TABLE task RENAME kind TO sort', 'task.kind is gone'],
    ['a table dropped', 'DROP TABLE replica', 'replica.id is gone'],
    ['a type changed', 'ALTER TABLE task ALTER revision TYPE bigint', 'task.revision was int4 and is int8'],
    ['a new column to be filled', 'ALTER TABLE replica ADD place text NOT NULL', 'replica.place must be given'],
    [
      'a column to be filled',
      'ALTER TABLE task ALTER active_version SET NOT NULL',
      'task.active_version must be given',
    ],
    ['a default dropped', 'ALTER TABLE task ALTER created_at DROP DEFAULT', 'task.created_at must be given'],
    ['a check', `ALTER TABLE task ADD CONSTRAINT few CHECK (revision < 9)`, 'task.few may refuse what was taken'],
    ['a unique index', 'CREATE UNIQUE INDEX kinds ON task (kind)', 'task.kinds may refuse what was taken'],
  ])('%s', async (_, statement, complaint) => {
    const before = await schema();
    const runner = source.createQueryRunner();
    await runner.startTransaction();
    try {
      await runner.query(statement);
      expect(incompatible(before, await schema(runner))).toContain(complaint);
    } finally {
      await runner.rollbackTransaction();
      await runner.release();
    }
  });
});

it('what faults left in answered rows is mended, and no other row changes', async () => {
  await source.query(
    `INSERT INTO task (name, kind, revision, definition, definition_digest) VALUES ('t', 'multi-label', 1, '{}', '')`,
  );
  const answered = randomUUID();
  /** By its answer the others were closed, or by one that is gone. */
  const candidates = [
    { id: answered, labels: ['b', 'a', 'b'], servedBy: null },
    { id: randomUUID(), labels: ['a', 'b'], servedBy: answered },
    { id: randomUUID(), labels: ['a', 'b'], servedBy: randomUUID() },
  ];
  for (const { id, labels, servedBy } of candidates) {
    await source.query(
      `INSERT INTO candidate (id, task, item_key, split_group, near_group, text, split, prediction, model_version,
         confidence, margin, entropy, vote_entropy, dissenting, route, audit, state, labels, answered_by, answered_at,
         served_by)
       VALUES ($1::uuid, 't', $1::uuid, '', '', '', 'train', '{}', 1, 0, 0, 0, 0, 0, 'REVIEW', false, 'LABELLED', $2, 'anna',
         now(), $3)`,
      [id, labels, servedBy],
    );
  }
  await source.query(
    `INSERT INTO example (task, item_key, split_group, text, labels, split, origin)
     VALUES ('t', 'a', '', '', '{c,a,c}', 'train', 'ANSWER'), ('t', 'b', '', '', '{}', 'train', 'ANSWER')`,
  );
  await source.query(
    `INSERT INTO answer (task, candidate, answered_by, asked, labels, before)
     VALUES ('t', $1, 'anna', 'STRATEGY', '{b,a,b}', '{}'), ('t', $1, 'ben', 'SECOND_ANSWER', NULL, '{}')`,
    [answered],
  );
  await apply(new AnswersTidied1795890000000(), 'up');
  expect(
    await source.query(
      `SELECT id, state, labels, answered_by AS by, served_by AS "servedBy" FROM candidate ORDER BY id`,
    ),
  ).toEqual(
    [
      { id: answered, state: 'LABELLED', labels: ['b', 'a'], by: 'anna', servedBy: null },
      { id: candidates[1]!.id, state: 'LABELLED', labels: ['a', 'b'], by: 'anna', servedBy: answered },
      { id: candidates[2]!.id, state: 'OPEN', labels: null, by: null, servedBy: null },
    ].toSorted((a, b) => (a.id < b.id ? -1 : 1)),
  );
  expect(await source.query('SELECT labels FROM example ORDER BY item_key')).toEqual([
    { labels: ['c', 'a'] },
    { labels: [] },
  ]);
  expect(await source.query('SELECT labels FROM answer ORDER BY seq')).toEqual([
    { labels: ['b', 'a'] },
    { labels: null },
  ]);
});

/** What of the new schema would fail a program that was written for the old one. */
function incompatible(before: Schema, after: Schema): string[] {
  const tables = new Set(Object.keys(before.columns).map((name) => name.split('.')[0]!));
  const known = (name: string) => tables.has(name.split('.')[0]!);
  const complaints: string[] = [];
  for (const [name, { type }] of Object.entries(before.columns)) {
    const now = after.columns[name];
    if (!now) complaints.push(`${name} is gone`);
    else if (now.type !== type) complaints.push(`${name} was ${type} and is ${now.type}`);
  }
  for (const [name, { optional }] of Object.entries(after.columns)) {
    if (!known(name) || optional) continue;
    if (before.columns[name]?.optional ?? true) complaints.push(`${name} must be given`);
  }
  for (const [name, definition] of Object.entries(after.refusals)) {
    if (known(name) && before.refusals[name] !== definition) complaints.push(`${name} may refuse what was taken`);
  }
  return complaints;
}

async function apply(migration: MigrationInterface, direction: 'up' | 'down'): Promise<void> {
  const runner = source.createQueryRunner();
  await runner.startTransaction();
  await migration[direction](runner);
  await runner.commitTransaction();
  await runner.release();
}

async function schema(runner: Pick<DataSource, 'query'> = source): Promise<Schema> {
  const ask = <T>(sql: string): Promise<T[]> => runner.query(sql);
  const columns = await ask<Column & { name: string }>(`
    SELECT table_name || '.' || column_name AS name, udt_name AS type, is_nullable = 'YES' AS nullable,
      is_nullable = 'YES' OR column_default IS NOT NULL OR is_identity = 'YES' OR is_generated = 'ALWAYS' AS optional
    FROM information_schema.columns WHERE table_schema = 'public'`);
  const refusals = await ask<{ name: string; definition: string }>(`
    SELECT conrelid::regclass || '.' || conname AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint
      WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    UNION ALL SELECT indrelid::regclass || '.' || indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index
      WHERE indisunique AND indexrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
    UNION ALL SELECT tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal`);
  const indexes = await ask<{ indexdef: string }>(
    `SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1`,
  );
  const functions = await ask<{ proname: string }>(
    `SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1`,
  );
  return {
    columns: Object.fromEntries(columns.map(({ name, ...column }) => [name, column])),
    refusals: Object.fromEntries(refusals.map(({ name, definition }) => [name, definition])),
    indexes: indexes.map(({ indexdef }) => indexdef),
    functions: functions.map(({ proname }) => proname),
  };
}

function timeOf(name: string): number {
  return Number(/\d+$/u.exec(name)![0]);
}
