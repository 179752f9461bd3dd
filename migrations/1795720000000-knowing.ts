import type { MigrationInterface, QueryRunner } from 'typeorm';

const UP = [
  // What was served before is not known any more: pools were scored anew in place.
  `ALTER TABLE candidate ADD served_prediction jsonb`,
  `CREATE INDEX candidate_audit_idx ON candidate (task, item_key) WHERE audit`,
  `ALTER TABLE example ADD revoked_at timestamptz`,
  `ALTER TABLE training_run ADD due_at timestamptz, ADD reproduces uuid, ADD reproduction jsonb`,
  // What a schedule started already is not caught up with.
  `UPDATE training_run SET due_at = created_at WHERE trigger = 'SCHEDULE'`,
  // A due time of a schedule starts one run, whichever replica notices it.
  `CREATE UNIQUE INDEX training_run_due_idx ON training_run (task, due_at) WHERE due_at IS NOT NULL`,
  `CREATE TABLE drift_check (
    task text NOT NULL,
    checked_at timestamptz NOT NULL,
    version integer NOT NULL,
    reference integer NOT NULL,
    present integer NOT NULL,
    level double precision NOT NULL,
    statistics jsonb NOT NULL,
    alarm boolean NOT NULL,
    answered boolean NOT NULL DEFAULT false,
    CONSTRAINT drift_check_pkey PRIMARY KEY (task, checked_at),
    CONSTRAINT drift_check_task_fkey FOREIGN KEY (task) REFERENCES task (name))`,
  `CREATE TABLE version_agreement (
    task text NOT NULL,
    version integer NOT NULL,
    before integer NOT NULL,
    texts integer NOT NULL,
    kappa double precision NOT NULL,
    CONSTRAINT version_agreement_pkey PRIMARY KEY (task, version),
    CONSTRAINT version_agreement_task_fkey FOREIGN KEY (task) REFERENCES task (name))`,
];

const DOWN = [
  `DROP TABLE version_agreement`,
  `DROP TABLE drift_check`,
  `ALTER TABLE training_run DROP due_at, DROP reproduces, DROP reproduction`,
  `ALTER TABLE example DROP revoked_at`,
  `DROP INDEX candidate_audit_idx`,
  `ALTER TABLE candidate DROP served_prediction`,
];

/** Served predictions of the audit slice, revoked sources, checks for drift, repeated runs, agreement of versions. */
export class Knowing1795720000000 implements MigrationInterface {
  name = 'Knowing1795720000000';

  async up(query: QueryRunner): Promise<void> {
    for (const statement of UP) await query.query(statement);
  }

  async down(query: QueryRunner): Promise<void> {
    for (const statement of DOWN) await query.query(statement);
  }
}
