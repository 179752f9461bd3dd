/**
 * The database's rows out and in, by PostgreSQL's COPY: no client program of the server's version is needed. Out is one
 * consistent moment (REPEATABLE READ) while others write; in is one transaction, schema and all, into a database that
 * has nothing of Fewloop: it is all there or nothing is.
 */
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { escapeIdentifier, type PoolClient } from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { DataSource, MigrationExecutor, type QueryRunner } from 'typeorm';
import { dataSourceOptions } from './data-source.js';
import { MIGRATION_LOCK } from './database.js';
import type { ModelVersionRow } from './entities/model-version.js';

/** What holds for processes that run now: who serves what, what was asked this minute. */
const OF_THE_MOMENT = new Set(['replica', 'access_usage', 'access_subscription']);

export interface TableCopy {
  table: string;
  columns: string[];
  rows: number;
}

export interface DatabaseState {
  /** Names of the migrations that made it, in their order. */
  migrations: string[];
  /** The last number that each sequence gave out; null: none yet. */
  sequences: Record<string, string | null>;
}

export type CopiedVersion = Pick<ModelVersionRow, 'task' | 'version' | 'digest' | 'folder' | 'state'>;

/** One moment of the database. Whoever opens it closes it. */
export class DatabaseSnapshot {
  private constructor(
    private readonly source: DataSource,
    private readonly runner: QueryRunner,
  ) {}

  /** Throws an Error where the database is not of this release. */
  static async open(url: string): Promise<DatabaseSnapshot> {
    const source = await new DataSource(dataSourceOptions(url)).initialize();
    const runner = source.createQueryRunner();
    const snapshot = new DatabaseSnapshot(source, runner);
    try {
      await runner.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      await snapshot.#refuseOtherRelease();
    } catch (error) {
      await snapshot.close();
      throw error;
    }
    return snapshot;
  }

  async state(): Promise<DatabaseState> {
    const sequences: Record<string, string | null> = {};
    const rows = (await this.runner.query(
      `SELECT sequencename AS name, last_value::text AS last FROM pg_sequences WHERE schemaname = current_schema()`,
    )) as { name: string; last: string | null }[];
    for (const { name, last } of rows) sequences[name] = last;
    return { migrations: migrationNames(this.source), sequences };
  }

  /** In an order in which rows find those that they refer to. */
  async tables(): Promise<Omit<TableCopy, 'rows'>[]> {
    const ordered = await inOrder(this.runner, tableNames(this.source));
    const tables = [];
    for (const table of ordered) tables.push({ table, columns: await columnsOf(this.runner, table) });
    return tables;
  }

  /** Every version that a row names. */
  async versions(): Promise<CopiedVersion[]> {
    const rows = await this.runner.query(
      'SELECT task, version, digest, folder, state FROM model_version ORDER BY task, version',
    );
    return rows as CopiedVersion[];
  }

  /** The table's rows in COPY's text format; `rowCount` once it has ended. */
  async read({ table, columns }: Omit<TableCopy, 'rows'>): Promise<Readable & { rowCount: number }> {
    const client = (await this.runner.connect()) as PoolClient;
    return client.query(copyTo(`COPY ${target(table, columns)} TO STDOUT`));
  }

  async close(): Promise<void> {
    if (!this.runner.isReleased) await this.runner.release();
    await this.source.destroy();
  }

  async #refuseOtherRelease(): Promise<void> {
    const own = migrationNames(this.source);
    const [{ exists }] = (await this.runner.query(`SELECT to_regclass('migrations') IS NOT NULL AS exists`)) as [
      { exists: boolean },
    ];
    const there = exists ? ((await this.runner.query('SELECT name FROM migrations')) as { name: string }[]) : [];
    const names = new Set(there.map(({ name }) => name));
    if (names.size === own.length && own.every((name) => names.has(name))) return;
    throw new Error(
      "the database is not of this release: make its backup by the release that it serves, or start this one's service first",
    );
  }
}

/**
 * Fills a database that has nothing of Fewloop. `read` gives what `DatabaseSnapshot.read` gave. `beforeCommit` runs when
 * all rows are in: where it throws, nothing is. Throws an Error that says what is in the way.
 */
export async function restoreDatabase(
  url: string,
  state: DatabaseState & { tables: TableCopy[] },
  read: (table: TableCopy) => Promise<Readable>,
  beforeCommit: () => Promise<void>,
): Promise<void> {
  const options = dataSourceOptions(url);
  const wanted = new Set(state.migrations);
  const migrations = (options.migrations as (new () => unknown)[]).filter(({ name }) => wanted.has(name));
  if (migrations.length !== wanted.size) throw new Error('the backup is of a newer release than this one');
  const source = await new DataSource({ ...options, migrations }).initialize();
  const runner = source.createQueryRunner();
  try {
    await runner.startTransaction();
    await runner.query('SELECT pg_advisory_xact_lock($1)', [MIGRATION_LOCK]);
    await refuseFilled(runner, [...tableNames(source), 'migrations']);
    const executor = new MigrationExecutor(source, runner);
    executor.transaction = 'none'; // ours
    await executor.executePendingMigrations();
    const client = (await runner.connect()) as PoolClient;
    for (const table of state.tables) await fill(client, table, await read(table));
    for (const [name, last] of Object.entries(state.sequences)) {
      if (last !== null) await runner.query('SELECT setval($1::regclass, $2)', [escapeIdentifier(name), last]);
    }
    await beforeCommit();
    await runner.commitTransaction();
  } catch (error) {
    if (runner.isTransactionActive) await runner.rollbackTransaction().catch(() => undefined);
    throw error;
  } finally {
    await runner.release();
    await source.destroy();
  }
}

async function fill(client: PoolClient, { table, columns, rows }: TableCopy, source: Readable): Promise<void> {
  const into = client.query(copyFrom(`COPY ${target(table, columns)} FROM STDIN`));
  await pipeline(source, into);
  if (into.rowCount !== rows) throw new Error(`table ${table} has ${into.rowCount} rows in place of ${rows}`);
}

async function refuseFilled(runner: QueryRunner, names: string[]): Promise<void> {
  for (const name of names) {
    const [{ exists }] = (await runner.query('SELECT to_regclass($1) IS NOT NULL AS exists', [
      escapeIdentifier(name),
    ])) as [{ exists: boolean }];
    if (exists) throw new Error(`the database has a table ${name} already: restore into an empty one`);
  }
}

function target(table: string, columns: string[]): string {
  return `${escapeIdentifier(table)} (${columns.map(escapeIdentifier).join(', ')})`;
}

function migrationNames(source: DataSource): string[] {
  return source.migrations.map(({ name, constructor }) => name ?? constructor.name);
}

/** Of all that is kept; the job queue's are in a schema of their own, and it makes its jobs again. */
function tableNames(source: DataSource): string[] {
  return source.entityMetadatas.map(({ tableName }) => tableName).filter((name) => !OF_THE_MOMENT.has(name));
}

async function columnsOf(runner: QueryRunner, table: string): Promise<string[]> {
  const rows = (await runner.query(
    `SELECT column_name AS name FROM information_schema.columns
     WHERE table_schema = current_schema() AND table_name = $1 AND is_generated = 'NEVER' ORDER BY ordinal_position`,
    [table],
  )) as { name: string }[];
  return rows.map(({ name }) => name);
}

async function inOrder(runner: QueryRunner, tables: string[]): Promise<string[]> {
  const references = (await runner.query(
    `SELECT conrelid::regclass::text AS child, confrelid::regclass::text AS parent
     FROM pg_constraint WHERE contype = 'f' AND conrelid <> confrelid`,
  )) as { child: string; parent: string }[];
  const ordered: string[] = [];
  while (ordered.length < tables.length) {
    const ready = tables.filter(
      (table) =>
        !ordered.includes(table) &&
        references.every(
          ({ child, parent }) => child !== table || !tables.includes(parent) || ordered.includes(parent),
        ),
    );
    if (ready.length === 0) throw new Error('tables refer to each other in a circle');
    ordered.push(...ready.sort());
  }
  return ordered;
}
