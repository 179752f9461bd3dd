import { describe, expect, it } from 'vitest';
import type { Config } from '../config/config.js';
import type { AccessUsageRepository } from '../storage/access-usage.repository.js';
import type { Principal } from './principal.js';
import { Usage } from './usage.js';

/** A minute of the database that does not end, and how often it was asked. */
class Minute {
  asked = 0;
  readonly #used = new Map<string, number>();
  readonly #open: string[] = [];

  async take(principal: string, resource: string, wanted: number, limit: number) {
    this.asked += 1;
    const key = `${principal} ${resource}`;
    const used = this.#used.get(key) ?? 0;
    const granted = Math.max(0, Math.min(wanted, limit - used));
    this.#used.set(key, used + granted);
    return { granted, msLeft: 30_000 };
  }

  async open(id: string, _principal: string, limit: number) {
    if (this.#open.length >= limit) return false;
    this.#open.push(id);
    return true;
  }

  async close(id: string) {
    this.#open.splice(this.#open.indexOf(id), 1);
  }
}

const replicas = (minute: Minute, count: number) =>
  Array.from({ length: count }, () => new Usage({} as Config, minute as unknown as AccessUsageRepository));

const principal = (limits: Partial<Principal['limits']>): Principal => ({
  name: 'key:x',
  role: 'CLIENT',
  tasks: null,
  limits: { requestsPerMinute: 0, tokensPerMinute: 0, subscriptions: 0, ...limits },
  expiresAt: null,
});

const granted = async (work: Promise<void>[]) =>
  (await Promise.allSettled(work)).filter(({ status }) => status === 'fulfilled').length;

describe('requests', () => {
  it('without a limit ask nobody', async () => {
    const minute = new Minute();
    const [usage] = replicas(minute, 1);
    await usage!.takeRequest(principal({}));
    expect(minute.asked).toBe(0);
  });

  it('are as many as the limit, whichever replica is asked, and the database is asked some twenty times', async () => {
    const minute = new Minute();
    const [one, other] = replicas(minute, 2);
    const who = principal({ requestsPerMinute: 100 });
    const work = Array.from({ length: 300 }, (_, i) => (i % 2 === 0 ? one! : other!).takeRequest(who));
    expect(await granted(work)).toBe(100);
    expect(minute.asked).toBeLessThanOrEqual(24);
  });

  it('one replica may have all of it', async () => {
    const [usage] = replicas(new Minute(), 1);
    const who = principal({ requestsPerMinute: 7 });
    expect(await granted(Array.from({ length: 20 }, () => usage!.takeRequest(who)))).toBe(7);
    await expect(usage!.takeRequest(who)).rejects.toMatchObject({
      code: 'OVERLOADED',
      retryAfterMs: expect.any(Number),
    });
  });
});

describe('tokens', () => {
  it('a large request is refused and a small one still answered', async () => {
    const [usage] = replicas(new Minute(), 1);
    const who = principal({ tokensPerMinute: 1000 });
    await usage!.takeTokens(who, 900);
    await expect(usage!.takeTokens(who, 200)).rejects.toMatchObject({ code: 'OVERLOADED' });
    await expect(usage!.takeTokens(who, 100)).resolves.toBeUndefined();
    await expect(usage!.takeTokens(who, 1)).rejects.toMatchObject({ code: 'OVERLOADED' });
  });

  it('what no minute has room for is too complex', async () => {
    const [usage] = replicas(new Minute(), 1);
    await expect(usage!.takeTokens(principal({ tokensPerMinute: 10 }), 11)).rejects.toMatchObject({
      code: 'QUERY_TOO_COMPLEX',
    });
  });
});

it('subscriptions are given back', async () => {
  const [one, other] = replicas(new Minute(), 2);
  const who = principal({ subscriptions: 1 });
  const close = await one!.openSubscription(who);
  await expect(other!.openSubscription(who)).rejects.toMatchObject({ code: 'OVERLOADED' });
  close();
  await other!.openSubscription(who);
});
