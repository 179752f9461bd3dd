import type { MigrationInterface, QueryRunner } from 'typeorm';

export class History1795600000000 implements MigrationInterface {
  name = 'History1795600000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query(`CREATE TABLE stream_pruned (
      task text NOT NULL,
      state text NOT NULL,
      count bigint NOT NULL,
      CONSTRAINT stream_pruned_pkey PRIMARY KEY (task, state))`);
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query(`DROP TABLE stream_pruned`);
  }
}
