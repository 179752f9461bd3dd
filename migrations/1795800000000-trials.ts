import type { MigrationInterface, QueryRunner } from 'typeorm';

export class Trials1795800000000 implements MigrationInterface {
  name = 'Trials1795800000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query(`CREATE TABLE trial (
      id uuid NOT NULL DEFAULT gen_random_uuid(),
      task text NOT NULL,
      version integer NOT NULL,
      against integer NOT NULL,
      kind text NOT NULL,
      percent double precision,
      started_by text NOT NULL,
      started_at timestamptz NOT NULL DEFAULT now(),
      ends_at timestamptz,
      ended_at timestamptz,
      outcome text,
      reason text,
      answered integer NOT NULL DEFAULT 0,
      compared integer NOT NULL DEFAULT 0,
      changed integer NOT NULL DEFAULT 0,
      failed integer NOT NULL DEFAULT 0,
      missed integer NOT NULL DEFAULT 0,
      asked integer NOT NULL DEFAULT 0,
      CONSTRAINT trial_pkey PRIMARY KEY (id),
      CONSTRAINT trial_task_fkey FOREIGN KEY (task) REFERENCES task (name))`);
    await query.query('CREATE UNIQUE INDEX trial_open_idx ON trial (task) WHERE ended_at IS NULL');
    await query.query('CREATE INDEX trial_version_idx ON trial (task, version, started_at)');
    await query.query(`CREATE TABLE trial_flip (
      trial uuid NOT NULL,
      champion text NOT NULL,
      challenger text NOT NULL,
      texts integer NOT NULL,
      CONSTRAINT trial_flip_pkey PRIMARY KEY (trial, champion, challenger),
      CONSTRAINT trial_flip_trial_fkey FOREIGN KEY (trial) REFERENCES trial (id) ON DELETE CASCADE)`);
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('DROP TABLE trial_flip');
    await query.query('DROP TABLE trial');
    await query.query(`UPDATE model_version SET state = 'CANDIDATE' WHERE state IN ('SHADOW', 'CANARY')`);
    await query.query(`UPDATE candidate SET reason = NULL, priority = 0 WHERE reason = 'CHALLENGER'`);
  }
}
