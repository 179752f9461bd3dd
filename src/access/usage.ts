/**
 * Limits of a principal, shared by all replicas without a query for each request: a replica takes a twentieth of the
 * minute's budget from the database at a time and spends it in memory. So a key never gets more than its limit, and may
 * get less by what other replicas hold unspent, a twentieth each.
 */
import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { LRUCache } from 'lru-cache';
import { randomUUID } from 'node:crypto';
import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import { AccessUsageRepository } from '../storage/access-usage.repository.js';
import type { Principal } from './principal.js';

type Resource = 'requests' | 'tokens';

interface Share {
  left: number;
  /** Epoch, ms: the end of the minute that it is of. */
  until: number;
  /** The minute has nothing more to give, or too little for this and all that is as large. */
  refused: number;
  taking: Promise<void> | undefined;
}

const SHARE = 20;
const SUBSCRIPTION_LEASE_MS = 90_000;
const PROLONG_MS = 30_000;
/** Principals that are remembered; of the others the share is given up. */
const MAX_SHARES = 10_000;

@Injectable()
export class Usage implements OnApplicationBootstrap, OnApplicationShutdown {
  readonly #log = new Logger(Usage.name);
  readonly #shares = new LRUCache<string, Share>({ max: MAX_SHARES });
  readonly #open = new Set<string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(AccessUsageRepository) private readonly usage: AccessUsageRepository,
  ) {}

  onApplicationBootstrap(): void {
    if (this.config.auth === 'none') return;
    this.#timer = setInterval(() => void this.tidy(), PROLONG_MS).unref();
  }

  async onApplicationShutdown(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all([...this.#open].map((id) => this.closed(id)));
  }

  /** Throws OVERLOADED with the time to the next minute. */
  takeRequest({ name, limits }: Principal): Promise<void> {
    return this.take(name, 'requests', 1, limits.requestsPerMinute);
  }

  takeTokens({ name, limits }: Principal, tokens: number): Promise<void> {
    return this.take(name, 'tokens', tokens, limits.tokensPerMinute);
  }

  /** Returns the way to give it back. */
  async openSubscription({ name, limits }: Principal): Promise<() => void> {
    if (limits.subscriptions === 0) return () => undefined;
    const id = randomUUID();
    if (!(await this.usage.open(id, name, limits.subscriptions, SUBSCRIPTION_LEASE_MS))) {
      const message = `${name} has its ${limits.subscriptions} subscriptions open`;
      throw new FewloopError('OVERLOADED', message, { retryAfterMs: 1000 });
    }
    this.#open.add(id);
    return () => void this.closed(id);
  }

  private async take(name: string, resource: Resource, amount: number, limit: number): Promise<void> {
    if (limit === 0 || amount === 0) return;
    if (amount > limit) {
      // Nothing would make room for it.
      throw new FewloopError(
        'QUERY_TOO_COMPLEX',
        `the request takes ${amount} ${resource}; ${name} has ${limit} a minute`,
      );
    }
    const share = this.shareOf(`${name} ${resource}`);
    for (;;) {
      const now = Date.now();
      if (now >= share.until) Object.assign(share, { left: 0, refused: Infinity });
      if (share.left >= amount) {
        share.left -= amount;
        return;
      }
      if (amount >= share.refused) throw exhausted(name, resource, limit, share.until - now);
      // Those who wait for the same answer look again together.
      share.taking ??= this.refill(share, { name, resource, amount, limit }).finally(() => (share.taking = undefined));
      await share.taking;
    }
  }

  private async refill(
    share: Share,
    { name, resource, amount, limit }: { name: string; resource: Resource; amount: number; limit: number },
  ): Promise<void> {
    const missing = amount - share.left;
    const wanted = Math.max(missing, Math.ceil(limit / SHARE));
    const { granted, msLeft } = await this.usage.take(name, resource, wanted, limit);
    const until = Date.now() + msLeft;
    // What was left is of a minute that may have ended while the database was asked.
    share.left = (Date.now() >= share.until ? 0 : share.left) + granted;
    share.until = until;
    share.refused = granted < missing ? amount : Infinity;
  }

  private shareOf(key: string): Share {
    const known = this.#shares.get(key) ?? { left: 0, until: 0, refused: Infinity, taking: undefined };
    this.#shares.set(key, known);
    return known;
  }

  private async closed(id: string): Promise<void> {
    this.#open.delete(id);
    await this.usage
      .close(id)
      .catch((error: unknown) => this.#log.warn({ err: error }, 'a subscription is not closed'));
  }

  private async tidy(): Promise<void> {
    try {
      if (this.#open.size > 0) await this.usage.prolong([...this.#open], SUBSCRIPTION_LEASE_MS);
      await this.usage.prune();
    } catch (error) {
      this.#log.warn({ err: error }, 'usage is not kept');
    }
  }
}

function exhausted(name: string, resource: Resource, limit: number, msLeft: number): FewloopError {
  const retryAfterMs = Math.max(1, Math.ceil(msLeft));
  return new FewloopError('OVERLOADED', `${name} has used its ${limit} ${resource} of this minute`, { retryAfterMs });
}
