/** The schema, on a real PostgreSQL: migrations both ways, what the database itself refuses, notifications. */
import { Client } from 'pg';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { dataSourceOptions } from '../../src/storage/data-source.js';
import { connect, Database } from '../../src/storage/database.js';
import { Notifications } from '../../src/storage/notifications.js';
import { PromotionsRepository } from '../../src/storage/promotions.repository.js';
import { RunsRepository } from '../../src/storage/runs.repository.js';
import { TasksRepository } from '../../src/storage/tasks.repository.js';
import { VersionsRepository } from '../../src/storage/versions.repository.js';
import { createDatabase } from '../fixtures/database.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let source: DataSource;

beforeEach(async () => {
  database = await createDatabase();
  source = await connect(database.url);
});
afterEach(async () => {
  if (source.isInitialized) await source.destroy();
  await database.drop();
});

const saveTask = (name: string, revision = 1) =>
  source.transaction((tx) =>
    new TasksRepository(source).saveRevision(
      { name, kind: 'single-label', revision, definition: {}, definitionDigest: `d${revision}`, appliedBy: 'test' },
      tx,
    ),
  );

describe('migrations', () => {
  it('make what the entities say, and nothing else', async () => {
    const { upQueries } = await source.driver.createSchemaBuilder().log();
    expect(upQueries.map(({ query }) => query)).toEqual([]);
  });

  it('go down to an empty database and up again', async () => {
    for (const _ of source.migrations) await source.undoLastMigration();
    const left = await source.query(
      `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')
       UNION SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY name`,
    );
    expect(left.map((row: { name: string }) => row.name)).toEqual(['migrations', 'migrations_id_seq']);
    await source.runMigrations();
    expect((await source.driver.createSchemaBuilder().log()).upQueries).toEqual([]);
  });

  it('several processes that start at once migrate once', async () => {
    const fresh = await createDatabase();
    const sources = await Promise.all([1, 2, 3].map(() => connect(fresh.url)));
    const rows = await sources[0]!.query('SELECT count(*)::int AS count FROM migrations');
    expect(rows).toEqual([{ count: source.migrations.length }]);
    await Promise.all(sources.map((one) => one.destroy()));
    await fresh.drop();
  });

  it('a database that is not there is an error, not an endless wait', async () => {
    const missing = new DataSource(dataSourceOptions(database.url.replace(/test_\w+/, 'no_such_database')));
    await expect(missing.initialize()).rejects.toThrow('does not exist');
  });
});

describe('what the database refuses', () => {
  it('a ledger entry is never changed', async () => {
    await source.query(
      `INSERT INTO ledger_entry (task, kind, body, at, previous_hash, hash) VALUES ('t', 'k', '{}', now(), '0', '1')`,
    );
    for (const sql of ['UPDATE ledger_entry SET kind = 1', 'DELETE FROM ledger_entry', 'TRUNCATE ledger_entry']) {
      await expect(source.query(sql)).rejects.toThrow('append-only');
    }
  });

  it('a second open run of a task', async () => {
    await saveTask('t');
    const runs = new RunsRepository(source);
    const run = { task: 't', trigger: 'MANUAL', reason: null, startedBy: null } as const;
    const made = await Promise.all([1, 2, 3, 4].map(() => runs.insertOpen(run)));
    const [first, ...others] = made.filter((row) => row !== null);
    expect(others).toEqual([]);
    expect(await runs.updateOpen(first!.id, { state: 'FAILED', error: 'x' })).toBe(true);
    expect(await runs.updateOpen(first!.id, { state: 'SUCCEEDED' })).toBe(false);
    expect(await runs.insertOpen(run)).not.toBeNull();
  });
});

describe('rows', () => {
  it('a task keeps the version before the active one', async () => {
    await saveTask('t');
    const tasks = new TasksRepository(source);
    for (const version of [1, 2, 2]) await tasks.setActive('t', version);
    expect(await saveTask('t', 2)).toMatchObject({ revision: 2, activeVersion: 2, previousVersion: 1 });
  });

  it('a promotion is decided once, and a newer one closes it', async () => {
    await saveTask('t');
    const promotions = new PromotionsRepository(source);
    const versions = new VersionsRepository(source);
    expect(await versions.next('t')).toBe(1);
    const request = { task: 't', version: 1, championVersion: null, verdict: 'BETTER', report: {} } as const;
    const [one, two] = [await promotions.insert(request), await promotions.insert(request)];
    const decision = { decision: 'APPROVED', decidedBy: 'a', comment: null, override: false } as const;
    await source.transaction(async (tx) => {
      await promotions.supersedeOpen('t', two.id, 'b', tx);
      expect(await promotions.decide(one.id, decision, tx)).toBe(false);
      expect(await promotions.decide(two.id, decision, tx)).toBe(true);
    });
    expect((await promotions.find(one.id))?.decision).toBe('SUPERSEDED');
  });
});

describe('notifications', () => {
  it('arrive, in other processes too, at any length, and again after the connection was lost', async () => {
    const address = new Database(database.url, () => Promise.resolve());
    const notifications = new Notifications(address, source);
    const heard: string[] = [];
    const off = notifications.on('fewloop_test', (payload) => heard.push(payload));
    await notifications.onApplicationBootstrap();
    await vi.waitFor(async () => {
      await notifications.notify('fewloop_test', 'one');
      expect(heard).toContain('one');
    }, 10_000);
    const client = new Client({ connectionString: database.url });
    await client.connect();
    await client.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name = 'fewloop-listen'`,
    );
    await client.end();
    await vi.waitFor(
      async () => {
        await notifications.notify('fewloop_test', 'two');
        expect(heard).toContain('two');
      },
      { timeout: 10_000, interval: 200 },
    );
    const sent = ['x', '评', '😀', 'xx'].flatMap((piece) =>
      [7_899, 7_900, 7_901, 60_000].map((length) => piece.repeat(length)),
    );
    heard.length = 0;
    await Promise.all(sent.map((payload) => notifications.notify('fewloop_test', payload)));
    await vi.waitFor(
      () => expect(heard.filter((payload) => payload !== 'two').toSorted()).toEqual(sent.toSorted()),
      10_000,
    );
    off();
    await notifications.onApplicationShutdown();
  });
});
