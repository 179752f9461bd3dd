import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';

const MINUTE_MS = 60_000;

@Injectable()
export class AccessUsageRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /**
   * Takes up to `wanted` of what a principal has left in this minute, by the database's clock. `granted` may be 0;
   * `msLeft`: until the next minute.
   */
  async take(
    principal: string,
    resource: string,
    wanted: number,
    limit: number,
  ): Promise<{ granted: number; msLeft: number }> {
    const [row] = await this.dataSource.query<{ granted: string; now: Date }[]>(
      `INSERT INTO access_usage AS held (principal, resource, minute, used, granted)
       VALUES ($1, $2, date_trunc('minute', now()), least($3::bigint, $4::bigint), least($3::bigint, $4::bigint))
       ON CONFLICT (principal, resource, minute) DO UPDATE SET
         granted = greatest(least($3::bigint, $4::bigint - held.used), 0),
         used = held.used + greatest(least($3::bigint, $4::bigint - held.used), 0)
       RETURNING granted, now() AS now`,
      [principal, resource, wanted, limit],
    );
    return { granted: Number(row!.granted), msLeft: MINUTE_MS - (row!.now.getTime() % MINUTE_MS) };
  }

  /** False where the principal has as many subscriptions open as it may. */
  async open(id: string, principal: string, limit: number, leaseMs: number): Promise<boolean> {
    return this.dataSource.transaction(async (tx) => {
      await tx.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [`subscriptions of ${principal}`]);
      const rows = await tx.query<unknown[]>(
        `INSERT INTO access_subscription (id, principal, expires_at)
         SELECT $1::uuid, $2::text, now() + $4::double precision * interval '1 ms'
         WHERE (SELECT count(*) FROM access_subscription WHERE principal = $2::text AND expires_at > now()) < $3::bigint
         RETURNING id`,
        [id, principal, limit, leaseMs],
      );
      return rows.length > 0;
    });
  }

  async prolong(ids: string[], leaseMs: number): Promise<void> {
    await this.dataSource.query(
      `UPDATE access_subscription SET expires_at = now() + $2::double precision * interval '1 ms' WHERE id = ANY ($1::uuid[])`,
      [ids, leaseMs],
    );
  }

  async close(id: string): Promise<void> {
    await this.dataSource.query('DELETE FROM access_subscription WHERE id = $1', [id]);
  }

  /** What no limit asks for any more. */
  async prune(): Promise<void> {
    await this.dataSource.query(`DELETE FROM access_usage WHERE minute < now() - interval '5 minutes'`);
    await this.dataSource.query('DELETE FROM access_subscription WHERE expires_at < now()');
  }
}
