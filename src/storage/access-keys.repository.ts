import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { AccessKeyRow, AccessSecretRow } from './entities/access-key.js';
import type { Tx } from './transactions.js';

export type NewAccessKey = Omit<AccessKeyRow, 'createdAt' | 'revokedAt' | 'revokedBy'>;
export type NewAccessSecret = Omit<AccessSecretRow, 'createdAt' | 'lastUsedAt'>;

/** A secret with the key that it proves. */
export type LiveSecret = Pick<AccessSecretRow, 'id' | 'hash' | 'expiresAt'> & AccessKeyRow;

@Injectable()
export class AccessKeysRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /** False where the name is or was in use. */
  async insert(key: NewAccessKey, tx: Tx): Promise<boolean> {
    const result = await tx
      .createQueryBuilder()
      .insert()
      .into(AccessKeyRow)
      .values(key)
      .orIgnore()
      .returning('name')
      .execute();
    return (result.raw as unknown[]).length > 0;
  }

  async insertSecret(secret: NewAccessSecret, tx: Tx): Promise<void> {
    await tx.insert(AccessSecretRow, secret);
  }

  /** Locked until the transaction ends: two that rotate or revoke a key do so one after the other. */
  findForUpdate(name: string, tx: Tx): Promise<AccessKeyRow | null> {
    return tx.findOne(AccessKeyRow, { where: { name }, lock: { mode: 'pessimistic_write' } });
  }

  list(): Promise<AccessKeyRow[]> {
    return this.dataSource.manager.find(AccessKeyRow, { order: { name: 'ASC' } });
  }

  /** Newest first. */
  secrets(key?: string, tx?: Tx): Promise<AccessSecretRow[]> {
    const where = key === undefined ? {} : { key };
    return (tx ?? this.dataSource.manager).find(AccessSecretRow, { where, order: { createdAt: 'DESC' } });
  }

  /** Of the key's secrets, which end then at the latest. */
  async endSecrets(key: string, at: Date, tx: Tx): Promise<void> {
    await tx.query('UPDATE access_secret SET expires_at = least(expires_at, $2::timestamptz) WHERE key = $1', [
      key,
      at,
    ]);
  }

  async revoke(name: string, by: string, tx: Tx): Promise<void> {
    await tx.update(AccessKeyRow, { name }, { revokedAt: new Date(), revokedBy: by });
  }

  /** Every secret that proves a key now. */
  live(): Promise<LiveSecret[]> {
    return this.dataSource.query(`
      SELECT s.id, s.hash, s.expires_at AS "expiresAt", k.name, k.role, k.tasks,
        k.requests_per_minute AS "requestsPerMinute", k.tokens_per_minute AS "tokensPerMinute", k.subscriptions
      FROM access_secret s JOIN access_key k ON k.name = s.key
      WHERE k.revoked_at IS NULL AND (s.expires_at IS NULL OR s.expires_at > now())`);
  }

  async noteUses(uses: ReadonlyMap<string, Date>): Promise<void> {
    await this.dataSource.query(
      `UPDATE access_secret s SET last_used_at = greatest(s.last_used_at, u.at)
       FROM unnest($1::text[], $2::timestamptz[]) AS u (id, at) WHERE s.id = u.id`,
      [[...uses.keys()], [...uses.values()]],
    );
  }
}
