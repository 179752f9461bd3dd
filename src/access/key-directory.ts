/**
 * All living keys, in memory: no request waits for the database, and one with a made-up key never reaches it. Read anew
 * every few seconds, and at once when another replica says that something changed; while the database is away what was
 * read last holds for `keyHoldMinutes`.
 */
import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import { AccessKeysRepository, type LiveSecret } from '../storage/access-keys.repository.js';
import { Notifications } from '../storage/notifications.js';
import { NO_LIMITS, type Principal, unauthenticated } from './principal.js';
import { hashOf, isSame, parseKey } from './secret.js';

const CHANNEL = 'fewloop_access';
const REFRESH_MS = 3_000;
/** Of the last use, which is for people who look for keys that nobody uses. */
const NOTE_USES_MS = 30_000;

@Injectable()
export class KeyDirectory implements OnApplicationBootstrap, OnApplicationShutdown {
  readonly #log = new Logger(KeyDirectory.name);
  #secrets = new Map<string, LiveSecret>();
  #readAt = 0;
  #reading: Promise<void> | undefined;
  #again = false;
  #timers: NodeJS.Timeout[] = [];
  #stop: (() => void) | undefined;
  #uses = new Map<string, Date>();
  readonly #admin: Buffer | undefined;

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(AccessKeysRepository) private readonly keys: AccessKeysRepository,
    @Inject(Notifications) private readonly notifications: Notifications,
  ) {
    if (config.adminKey !== '') this.#admin = hashOf(config.adminKey);
  }

  async onApplicationBootstrap(): Promise<void> {
    if (this.config.auth === 'none') return;
    this.#stop = this.notifications.on(CHANNEL, () => void this.refresh());
    const every = (ms: number, work: () => Promise<void>) =>
      this.#timers.push(setInterval(() => void work(), ms).unref());
    every(REFRESH_MS, () => this.refresh());
    every(NOTE_USES_MS, () => this.noteUses());
    await this.refresh();
  }

  async onApplicationShutdown(): Promise<void> {
    this.#stop?.();
    this.#timers.forEach(clearInterval);
    await this.#reading;
    await this.noteUses();
  }

  /** Throws UNAUTHENTICATED, and OVERLOADED while nobody can say which keys there are. */
  verify(token: string): Principal {
    if (this.#admin && isSame(hashOf(token), this.#admin)) return this.adminPrincipal();
    this.refuseStale();
    const parsed = parseKey(token);
    const found = parsed && this.#secrets.get(parsed.id);
    if (!found || !isSame(found.hash, parsed.hash)) throw unauthenticated('this key is not, or no longer, valid');
    const principal = this.principalOf(found);
    if (!this.isAlive(principal)) throw unauthenticated('this key has expired');
    this.#uses.set(found.id, new Date());
    return principal;
  }

  /** Whether what was proved once still holds: not expired, revoked or rotated out. */
  isAlive({ expiresAt, secretId }: Principal): boolean {
    if (expiresAt !== null && expiresAt.getTime() <= Date.now()) return false;
    return secretId === undefined || this.#secrets.has(secretId);
  }

  /** For this replica now, for the others as soon as they hear of it. */
  async changed(): Promise<void> {
    await this.refresh();
    await this.notifications.notify(CHANNEL, 'changed');
  }

  /** One reading at a time; who asks during one gets what is read after. */
  async refresh(): Promise<void> {
    if (this.#reading) {
      this.#again = true;
      return this.#reading;
    }
    this.#reading = (async () => {
      do {
        this.#again = false;
        await this.read();
      } while (this.#again);
    })();
    await this.#reading.finally(() => (this.#reading = undefined));
  }

  private async read(): Promise<void> {
    try {
      const secrets = await this.keys.live();
      this.#secrets = new Map(secrets.map((secret) => [secret.id, secret]));
      this.#readAt = Date.now();
    } catch (error) {
      this.#log.warn({ err: error }, 'the keys cannot be read');
    }
  }

  private async noteUses(): Promise<void> {
    if (this.#uses.size === 0) return;
    const uses = this.#uses;
    this.#uses = new Map();
    await this.keys.noteUses(uses).catch((error: unknown) => this.#log.warn({ err: error }, 'uses are not noted'));
  }

  private refuseStale(): void {
    if (Date.now() - this.#readAt < this.config.keyHoldMinutes * 60_000) return;
    throw new FewloopError('OVERLOADED', 'keys cannot be checked: the database does not answer', {
      retryAfterMs: 1000,
    });
  }

  private adminPrincipal(): Principal {
    return { name: 'key:admin', role: 'ADMIN', tasks: null, limits: NO_LIMITS, expiresAt: null };
  }

  private principalOf(secret: LiveSecret): Principal {
    const { name, role, tasks, expiresAt, id } = secret;
    const limits = {
      requestsPerMinute: secret.requestsPerMinute ?? this.config.requestsPerMinute,
      tokensPerMinute: secret.tokensPerMinute ?? this.config.tokensPerMinute,
      subscriptions: secret.subscriptions ?? this.config.subscriptions,
    };
    return { name: `key:${name}`, role, tasks, limits, expiresAt, secretId: id };
  }
}
