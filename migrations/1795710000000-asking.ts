import type { MigrationInterface, QueryRunner } from 'typeorm';

const UP = [
  // Near-duplicates, what is predicted, leases, and questions that are asked for another reason than their score.
  `ALTER TABLE candidate
    ADD near_group text,
    ADD bands integer[],
    ADD predicted_label text,
    ADD leased_by text,
    ADD leased_until timestamptz,
    ADD reason text,
    ADD priority double precision NOT NULL DEFAULT 0,
    ADD served_by uuid`,
  // What is there already is its own group: its text is compared by the service alone.
  `UPDATE candidate SET near_group = left(item_key, 16), predicted_label = prediction ->> 'label'`,
  `ALTER TABLE candidate ALTER near_group SET NOT NULL`,
  `CREATE INDEX candidate_near_group_idx ON candidate (task, near_group)`,
  // Without a list of pending entries, which every look-up would read through.
  `CREATE INDEX candidate_bands_idx ON candidate USING gin (bands) WITH (fastupdate = off)`,
  `CREATE INDEX candidate_served_idx ON candidate (served_by) WHERE served_by IS NOT NULL`,
  `CREATE INDEX candidate_lease_idx ON candidate (task, leased_until) WHERE leased_until IS NOT NULL`,
  `CREATE INDEX candidate_reason_idx ON candidate (task, priority DESC, id) WHERE reason IS NOT NULL`,
  `CREATE INDEX candidate_answered_idx ON candidate (task, state) WHERE state <> 'OPEN'`,
  `CREATE INDEX candidate_label_idx ON candidate (task, predicted_label, margin, confidence, id) WHERE state = 'OPEN'`,
  `CREATE INDEX candidate_contested_idx ON candidate (task, margin, confidence, id)
    WHERE state = 'OPEN' AND dissenting > 0`,
  `CREATE INDEX candidate_entropy_idx ON candidate (task, entropy DESC, id) WHERE state = 'OPEN'`,
  `CREATE INDEX candidate_votes_idx ON candidate (task, vote_entropy DESC, margin, id) WHERE state = 'OPEN'`,
  `CREATE INDEX candidate_bald_idx ON candidate (task, jensen_shannon DESC, margin, id) WHERE state = 'OPEN'`,
  `ALTER TABLE example ADD near_group text`,
  `CREATE TABLE answer (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    seq bigserial NOT NULL,
    task text NOT NULL,
    candidate uuid NOT NULL,
    answered_by text NOT NULL,
    asked text NOT NULL,
    labels text[],
    skip_reason text,
    before jsonb NOT NULL,
    answered_at timestamptz NOT NULL DEFAULT now(),
    undone_at timestamptz,
    CONSTRAINT answer_pkey PRIMARY KEY (id),
    CONSTRAINT answer_task_fkey FOREIGN KEY (task) REFERENCES task (name),
    CONSTRAINT answer_candidate_fkey FOREIGN KEY (candidate) REFERENCES candidate (id) ON DELETE CASCADE)`,
  `CREATE INDEX answer_candidate_idx ON answer (candidate)`,
  `CREATE INDEX answer_by_idx ON answer (task, answered_by, seq)`,
];

const DOWN = [
  `DROP TABLE answer`,
  `ALTER TABLE example DROP near_group`,
  `DROP INDEX candidate_entropy_idx, candidate_votes_idx, candidate_bald_idx, candidate_contested_idx,
    candidate_answered_idx`,
  // The columns take their other indexes along.
  `ALTER TABLE candidate DROP near_group, DROP bands, DROP predicted_label, DROP leased_by, DROP leased_until,
    DROP reason, DROP priority, DROP served_by`,
];

/** Near-duplicates, leases, answers of several labelers, indexes for the queue's filters and orders. */
export class Asking1795710000000 implements MigrationInterface {
  name = 'Asking1795710000000';

  async up(query: QueryRunner): Promise<void> {
    for (const statement of UP) await query.query(statement);
  }

  async down(query: QueryRunner): Promise<void> {
    for (const statement of DOWN) await query.query(statement);
  }
}
