import type { MigrationInterface, QueryRunner } from 'typeorm';

export class ReplicaFailures1795750000000 implements MigrationInterface {
  name = 'ReplicaFailures1795750000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query(`ALTER TABLE replica ADD COLUMN failures jsonb NOT NULL DEFAULT '{}'`);
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('ALTER TABLE replica DROP COLUMN failures');
  }
}
