import type { MigrationInterface, QueryRunner } from 'typeorm';

/** The review queue asks with each page what was answered since the model was made. */
export class NewestExamples1795870000000 implements MigrationInterface {
  name = 'NewestExamples1795870000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query('CREATE INDEX example_created_idx ON example (task, split, created_at)');
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('DROP INDEX example_created_idx');
  }
}
