import type { MigrationInterface, QueryRunner } from 'typeorm';

/** API keys with their secrets, and what each has used of its limits. */
export class Access1795740000000 implements MigrationInterface {
  name = 'Access1795740000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query(`
      CREATE TABLE access_key (
        name text PRIMARY KEY,
        role text NOT NULL,
        tasks text[],
        requests_per_minute integer,
        tokens_per_minute integer,
        subscriptions integer,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        revoked_at timestamptz,
        revoked_by text
      )`);
    await query.query(`
      CREATE TABLE access_secret (
        id text PRIMARY KEY,
        key text NOT NULL REFERENCES access_key (name),
        hash bytea NOT NULL,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz,
        last_used_at timestamptz
      )`);
    await query.query('CREATE INDEX access_secret_key_idx ON access_secret (key, created_at)');
    await query.query(`
      CREATE TABLE access_usage (
        principal text NOT NULL,
        resource text NOT NULL,
        minute timestamptz NOT NULL,
        used bigint NOT NULL,
        granted bigint NOT NULL,
        PRIMARY KEY (principal, resource, minute)
      )`);
    await query.query('CREATE INDEX access_usage_minute_idx ON access_usage (minute)');
    await query.query(`
      CREATE TABLE access_subscription (
        id uuid PRIMARY KEY,
        principal text NOT NULL,
        expires_at timestamptz NOT NULL
      )`);
    await query.query('CREATE INDEX access_subscription_principal_idx ON access_subscription (principal, expires_at)');
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('DROP TABLE access_subscription');
    await query.query('DROP TABLE access_usage');
    await query.query('DROP TABLE access_secret');
    await query.query('DROP TABLE access_key');
  }
}
