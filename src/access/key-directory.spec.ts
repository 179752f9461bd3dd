import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Config } from '../config/config.js';
import type { AccessKeysRepository, LiveSecret } from '../storage/access-keys.repository.js';
import type { Notifications } from '../storage/notifications.js';
import { KeyDirectory } from './key-directory.js';
import { makeKey, type MadeKey } from './secret.js';

const ADMIN = 'an-admin-key-of-more-than-thirty-two-characters';
const limits = { requestsPerMinute: 5, tokensPerMinute: 6, subscriptions: 7 };
const config = { auth: 'required', adminKey: ADMIN, keyHoldMinutes: 60, ...limits };

const secretOf = ({ id, hash }: MadeKey, rest: Partial<LiveSecret> = {}) =>
  ({
    id,
    hash,
    name: 'shop',
    role: 'CLIENT',
    tasks: ['a'],
    expiresAt: null,
    requestsPerMinute: 1,
    ...rest,
  }) as LiveSecret;

async function directoryOf(live: () => Promise<LiveSecret[]>) {
  const keys = { live, noteUses: vi.fn(async () => undefined) };
  const notifications = { on: () => () => undefined, notify: async () => true };
  const directory = new KeyDirectory(
    config as unknown as Config,
    keys as unknown as AccessKeysRepository,
    notifications as unknown as Notifications,
  );
  await directory.refresh();
  return { directory, keys };
}

afterEach(() => {
  vi.useRealTimers();
});

describe('a key', () => {
  it('gives who it is, with its own limits and the configured ones', async () => {
    const made = makeKey();
    const { directory } = await directoryOf(async () => [secretOf(made)]);
    const limits = { requestsPerMinute: 1, tokensPerMinute: 6, subscriptions: 7 };
    expect(directory.verify(made.key)).toMatchObject({ name: 'key:shop', role: 'CLIENT', tasks: ['a'], limits });
    expect(directory.verify(ADMIN)).toMatchObject({ name: 'key:admin', role: 'ADMIN', tasks: null });
  });

  it('is refused where the secret is another, or it has expired since it was read', async () => {
    const made = makeKey();
    const expiresAt = new Date(Date.now() + 30_000);
    const { directory } = await directoryOf(async () => [secretOf(made, { expiresAt })]);
    const forged = made.key.slice(0, 21) + makeKey().key.slice(21);
    expect(() => directory.verify(forged)).toThrow(expect.objectContaining({ code: 'UNAUTHENTICATED' }));
    const principal = directory.verify(made.key);
    expect(directory.isAlive(principal)).toBe(true);
    vi.useFakeTimers({ now: expiresAt.getTime() + 1 });
    expect(directory.isAlive(principal)).toBe(false);
    expect(() => directory.verify(made.key)).toThrow(expect.objectContaining({ code: 'UNAUTHENTICATED' }));
  });

  it('ends when it is not read any more', async () => {
    const made = makeKey();
    let live = [secretOf(made)];
    const { directory } = await directoryOf(async () => live);
    const principal = directory.verify(made.key);
    live = [];
    await directory.refresh();
    expect(directory.isAlive(principal)).toBe(false);
    expect(() => directory.verify(made.key)).toThrow(expect.objectContaining({ code: 'UNAUTHENTICATED' }));
  });
});

it('a database that is away: known keys hold for as long as is set, then ask again later; the admin key holds', async () => {
  const made = makeKey();
  let away = false;
  const { directory } = await directoryOf(async () => {
    if (away) throw new Error('away');
    return [secretOf(made)];
  });
  away = true;
  await directory.refresh();
  expect(directory.verify(made.key).name).toBe('key:shop');
  vi.useFakeTimers({ now: Date.now() + 59 * 60_000 });
  expect(directory.verify(made.key).name).toBe('key:shop');
  vi.useFakeTimers({ now: Date.now() + 2 * 60_000 });
  expect(() => directory.verify(made.key)).toThrow(expect.objectContaining({ code: 'OVERLOADED', retryAfterMs: 1000 }));
  expect(directory.verify(ADMIN).name).toBe('key:admin');
});

it('who asks during a reading gets what is read after it', async () => {
  let reads = 0;
  const { directory } = await directoryOf(async () => {
    reads += 1;
    return [];
  });
  await Promise.all([directory.refresh(), directory.refresh(), directory.refresh()]);
  expect(reads).toBe(3);
});
