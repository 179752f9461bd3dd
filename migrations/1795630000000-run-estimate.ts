import type { MigrationInterface, QueryRunner } from 'typeorm';

export class RunEstimate1795630000000 implements MigrationInterface {
  name = 'RunEstimate1795630000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query('ALTER TABLE training_run ADD COLUMN estimate_seconds double precision');
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('ALTER TABLE training_run DROP COLUMN estimate_seconds');
  }
}
