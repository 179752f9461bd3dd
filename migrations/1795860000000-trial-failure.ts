import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Why a process could not open the version that is on trial. */
export class TrialFailure1795860000000 implements MigrationInterface {
  name = 'TrialFailure1795860000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query('ALTER TABLE trial ADD failure text');
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('ALTER TABLE trial DROP failure');
  }
}
