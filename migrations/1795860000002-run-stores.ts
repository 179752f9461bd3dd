import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Data folders with runs, and up to which entry of the ledger each has erased what was forgotten. */
export class RunStores1795860000002 implements MigrationInterface {
  name = 'RunStores1795860000002';

  async up(query: QueryRunner): Promise<void> {
    await query.query(
      `CREATE TABLE run_store (
        id uuid NOT NULL,
        erased_up_to bigint NOT NULL,
        seen_at timestamptz NOT NULL,
        CONSTRAINT run_store_pkey PRIMARY KEY (id))`,
    );
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('DROP TABLE run_store');
  }
}
