/**
 * API keys: made, rotated, revoked, listed. What is shown of a key is shown once. Each change is in the ledger, with who
 * made it and without what proves the key.
 */
import { Inject, Injectable } from '@nestjs/common';
import { badInput, checkCharacters, FewloopError } from '../common/errors.js';
import { LedgerService, NO_TASK } from '../learning/ledger.js';
import { AccessKeysRepository } from '../storage/access-keys.repository.js';
import type { AccessKeyRow, AccessSecretRow } from '../storage/entities/access-key.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import { KeyDirectory } from './key-directory.js';
import type { Role } from './principal.js';
import { makeKey } from './secret.js';

const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/u;
const DAY_MS = 86_400_000;
const MAX_DAYS = 3650;
const MAX_GRACE_MINUTES = 30 * 24 * 60;
const MAX_TASKS = 1000;
const MAX_LIMIT = 2 ** 31 - 1;

export interface NewKey {
  name: string;
  role: Role;
  /** Null: all. */
  tasks: string[] | null;
  /** Null: never. */
  expiresInDays: number | null;
  requestsPerMinute: number | null;
  tokensPerMinute: number | null;
  subscriptions: number | null;
}

export type KeyWithSecrets = AccessKeyRow & { secrets: AccessSecretRow[] };

@Injectable()
export class KeyService {
  constructor(
    @Inject(AccessKeysRepository) private readonly keys: AccessKeysRepository,
    @Inject(KeyDirectory) private readonly directory: KeyDirectory,
    @Inject(LedgerService) private readonly ledger: LedgerService,
    @Inject(Transactions) private readonly transactions: Transactions,
  ) {}

  /** Returns the key itself, which nobody can be told again. */
  async create(key: NewKey, by: string): Promise<string> {
    check(key);
    const { expiresInDays, ...row } = key;
    const made = await this.transactions.run(async (tx) => {
      if (!(await this.keys.insert({ ...row, createdBy: by }, tx))) {
        throw new FewloopError('CONFLICT', `there is, or was, a key ${key.name}: a name is given once`);
      }
      const secret = await this.addSecret(key.name, daysFromNow(expiresInDays), by, tx);
      const { id, expiresAt } = secret;
      await this.ledger.append(tx, NO_TASK, 'key-created', { key: row, secret: id, expiresAt, by });
      return secret.key;
    });
    await this.directory.changed();
    return made;
  }

  /** A further secret; those before it end after the grace. `expiresInDays` null: it lives as long as the last one was to. */
  async rotate(
    name: string,
    { graceMinutes, expiresInDays }: { graceMinutes: number; expiresInDays: number | null },
    by: string,
  ): Promise<string> {
    if (!(graceMinutes >= 0 && graceMinutes <= MAX_GRACE_MINUTES)) {
      throw badInput('graceMinutes', `must be 0 to ${MAX_GRACE_MINUTES}`);
    }
    checkDays(expiresInDays);
    const made = await this.transactions.run(async (tx) => {
      await this.living(name, tx);
      const [last] = await this.keys.secrets(name, tx);
      const expiresAt = expiresInDays === null ? sameLife(last) : daysFromNow(expiresInDays);
      const othersEndAt = new Date(Date.now() + graceMinutes * 60_000);
      await this.keys.endSecrets(name, othersEndAt, tx);
      const secret = await this.addSecret(name, expiresAt, by, tx);
      const { id } = secret;
      await this.ledger.append(tx, NO_TASK, 'key-rotated', { key: { name }, secret: id, expiresAt, othersEndAt, by });
      return secret.key;
    });
    await this.directory.changed();
    return made;
  }

  async revoke(name: string, by: string): Promise<void> {
    await this.transactions.run(async (tx) => {
      await this.living(name, tx);
      await this.keys.revoke(name, by, tx);
      await this.ledger.append(tx, NO_TASK, 'key-revoked', { key: { name }, by });
    });
    await this.directory.changed();
  }

  async list(): Promise<KeyWithSecrets[]> {
    const [keys, secrets] = await Promise.all([this.keys.list(), this.keys.secrets()]);
    return keys.map((key) => Object.assign(key, { secrets: secrets.filter((secret) => secret.key === key.name) }));
  }

  async get(name: string): Promise<KeyWithSecrets> {
    const key = (await this.list()).find((each) => each.name === name);
    if (!key) throw noSuchKey(name);
    return key;
  }

  private async living(name: string, tx: Tx): Promise<void> {
    const key = await this.keys.findForUpdate(name, tx);
    if (!key) throw noSuchKey(name);
    if (key.revokedAt !== null) throw new FewloopError('CONFLICT', `the key ${name} is revoked: make another`);
  }

  private async addSecret(name: string, expiresAt: Date | null, by: string, tx: Tx) {
    const { id, key, hash } = makeKey();
    await this.keys.insertSecret({ id, key: name, hash, expiresAt, createdBy: by }, tx);
    return { id, key, expiresAt };
  }
}

function check({ name, tasks, expiresInDays, ...limits }: NewKey): void {
  if (!NAME.test(name) || name === 'admin') {
    throw badInput('name', 'must be small letters, digits, dots, dashes and underscores, at most 63, and not admin');
  }
  if (tasks !== null && (tasks.length === 0 || tasks.length > MAX_TASKS)) {
    throw badInput('tasks', `must be 1 to ${MAX_TASKS} names; leave it out for all tasks`);
  }
  tasks?.forEach((task, i) => checkCharacters(`tasks.${i}`, task));
  checkDays(expiresInDays);
  for (const field of ['requestsPerMinute', 'tokensPerMinute', 'subscriptions'] as const) {
    const limit = limits[field];
    if (limit !== null && !(limit >= 0 && limit <= MAX_LIMIT)) throw badInput(field, 'must not be negative');
  }
}

function checkDays(days: number | null): void {
  if (days !== null && !(days >= 1 && days <= MAX_DAYS)) throw badInput('expiresInDays', `must be 1 to ${MAX_DAYS}`);
}

function daysFromNow(days: number | null): Date | null {
  return days === null ? null : new Date(Date.now() + days * DAY_MS);
}

/** From now as long as that secret was to live from the day it was made. */
function sameLife(last: AccessSecretRow | undefined): Date | null {
  if (!last || last.expiresAt === null) return null;
  return new Date(Date.now() + last.expiresAt.getTime() - last.createdAt.getTime());
}

function noSuchKey(name: string): FewloopError {
  return badInput('name', `there is no key ${name}`);
}
