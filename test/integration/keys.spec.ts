/** Keys and what they may use, on a real database. */
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KeyDirectory } from '../../src/access/key-directory.js';
import { KeyService, type NewKey } from '../../src/access/keys.js';
import type { Principal } from '../../src/access/principal.js';
import { Usage } from '../../src/access/usage.js';
import { Config } from '../../src/config/config.js';
import { LedgerService, NO_TASK } from '../../src/learning/ledger.js';
import { AccessKeysRepository } from '../../src/storage/access-keys.repository.js';
import { AccessUsageRepository } from '../../src/storage/access-usage.repository.js';
import { connect } from '../../src/storage/database.js';
import { LedgerRepository } from '../../src/storage/ledger.repository.js';
import { Transactions } from '../../src/storage/transactions.js';
import { createDatabase } from '../fixtures/database.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataSource: DataSource;
let ledger: LedgerService;
let keys: KeyService;

beforeAll(async () => {
  database = await createDatabase();
  dataSource = await connect(database.url);
  ledger = new LedgerService(new LedgerRepository(dataSource));
  const directory = { changed: () => Promise.resolve() } as KeyDirectory;
  keys = new KeyService(new AccessKeysRepository(dataSource), directory, ledger, new Transactions(dataSource));
});
afterAll(async () => {
  await dataSource.destroy();
  await database.drop();
});

const newKey = (name: string): NewKey => ({
  name,
  role: 'CLIENT',
  tasks: ['reviews'],
  expiresInDays: 90,
  requestsPerMinute: null,
  tokensPerMinute: null,
  subscriptions: null,
});

describe('the ledger of keys', () => {
  it('has who made, rotated and revoked one, and nothing that proves it', async () => {
    const shown = [await keys.create(newKey('shop'), 'key:admin')];
    shown.push(await keys.rotate('shop', { graceMinutes: 5, expiresInDays: null }, 'oidc:ann'));
    await keys.revoke('shop', 'oidc:bob');
    const { expiresInDays: _, ...row } = newKey('shop');
    const entries = (await ledger.listOfTask(NO_TASK, 10)).toReversed();
    const [first, second] = shown.map((key) => key.split('_')[1]);
    const expiresAt = expect.stringMatching(/^2\d{3}-/u);
    expect(entries.map(({ kind, body }) => [kind, body])).toEqual([
      ['key-created', { key: row, secret: first, expiresAt, by: 'key:admin' }],
      ['key-rotated', { key: { name: 'shop' }, secret: second, expiresAt, othersEndAt: expiresAt, by: 'oidc:ann' }],
      ['key-revoked', { key: { name: 'shop' }, by: 'oidc:bob' }],
    ]);
    for (const key of shown) expect(JSON.stringify(entries)).not.toContain(key.split('_').slice(2).join('_'));
    expect(await ledger.verify()).toMatchObject({ entries: 3, brokenAt: null });
  });

  it('has nothing of what was refused', async () => {
    const before = await ledger.verify();
    await expect(keys.create(newKey('shop'), 'key:admin')).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(keys.revoke('shop', 'key:admin')).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(keys.revoke('nobody', 'key:admin')).rejects.toMatchObject({ code: 'BAD_INPUT' });
    await expect(keys.create({ ...newKey('half'), tasks: ['\ud83d'] }, 'key:admin')).rejects.toMatchObject({
      code: 'BAD_INPUT',
      field: 'tasks.0',
    });
    expect(await ledger.verify()).toEqual(before);
  });
});

describe('usage', () => {
  const principal = (name: string, limits: Partial<Principal['limits']>): Principal => ({
    name,
    role: 'CLIENT',
    tasks: null,
    limits: { requestsPerMinute: 0, tokensPerMinute: 0, subscriptions: 0, ...limits },
    expiresAt: null,
  });
  const replicas = () => [1, 2].map(() => new Usage(Config.load({}), new AccessUsageRepository(dataSource)));

  it('as many subscriptions as the limit, however many ask two replicas at once, and one more for each that ends', async () => {
    const who = principal('key:watcher', { subscriptions: 3 });
    const [one, other] = replicas();
    const open = (count: number) =>
      Promise.allSettled(Array.from({ length: count }, (_, i) => (i % 2 === 0 ? one! : other!).openSubscription(who)));
    const opened = async (count: number) =>
      (await open(count)).flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    const closers = await opened(12);
    expect(closers).toHaveLength(3);
    closers[0]!();
    closers[1]!();
    await expect.poll(async () => (await opened(1)).length).toBe(1);
    await expect.poll(async () => (await opened(4)).length).toBe(1);
    expect(await opened(4)).toHaveLength(0);
    // Another's are its own.
    await expect(one!.openSubscription(principal('key:other', { subscriptions: 1 }))).resolves.toBeTypeOf('function');
    await one!.onApplicationShutdown();
    await other!.onApplicationShutdown();
    expect(await dataSource.query('SELECT count(*)::int AS open FROM access_subscription')).toEqual([{ open: 0 }]);
  });

  it('what a replica that was killed held is given back when its lease is over', async () => {
    const who = principal('key:lost', { subscriptions: 1 });
    const [one, other] = replicas();
    await one!.openSubscription(who);
    await expect(other!.openSubscription(who)).rejects.toMatchObject({ code: 'OVERLOADED' });
    await dataSource.query(`UPDATE access_subscription SET expires_at = now() WHERE principal = 'key:lost'`);
    await expect(other!.openSubscription(who)).resolves.toBeTypeOf('function');
  });

  it('as many requests as the limit over two replicas', async () => {
    const [one, other] = replicas();
    const minute = async () =>
      (await dataSource.query<{ minute: number }[]>(`SELECT extract(minute FROM now())::int AS minute`))[0]!.minute;
    const granted = async (id: string) => {
      const who = principal(id, { requestsPerMinute: 50 });
      const started = await minute();
      const asked = Array.from({ length: 150 }, (_, i) => (i % 2 === 0 ? one! : other!).takeRequest(who));
      const count = (await Promise.allSettled(asked)).filter(({ status }) => status === 'fulfilled').length;
      return started === (await minute()) ? count : 'the minute ended meanwhile';
    };
    let count = await granted('key:busy');
    // Of a caller of its own: the first has used up a part of the new minute.
    if (typeof count === 'string') count = await granted('key:busier');
    expect(count).toBe(50);
  });
});
