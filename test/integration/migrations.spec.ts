/**
 * The rule of docs/operations/upgrade.md, held to the catalog of a real PostgreSQL: while replicas are replaced one by
 * one, the release before reads and writes what a migration has already changed. So a migration may add, and take away
 * nothing that the release before uses; and each goes down to what was there.
 */
import { DataSource, type MigrationInterface } from 'typeorm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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
