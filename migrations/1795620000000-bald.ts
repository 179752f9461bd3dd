import type { MigrationInterface, QueryRunner } from 'typeorm';

/** The members' Jensen-Shannon divergence as a column, which questions are ordered by. */
export class Bald1795620000000 implements MigrationInterface {
  name = 'Bald1795620000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query(`ALTER TABLE candidate ADD jensen_shannon double precision NOT NULL DEFAULT 0`);
    await query.query(
      `UPDATE candidate SET jensen_shannon = coalesce((prediction #>> '{disagreement,jensenShannon}')::double precision, 0)`,
    );
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query(`ALTER TABLE candidate DROP COLUMN jensen_shannon`);
  }
}
