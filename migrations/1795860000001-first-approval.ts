import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Who has approved what a second person is still to approve. */
export class FirstApproval1795860000001 implements MigrationInterface {
  name = 'FirstApproval1795860000001';

  async up(query: QueryRunner): Promise<void> {
    await query.query('ALTER TABLE promotion ADD first_approval_by text');
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('ALTER TABLE promotion DROP first_approval_by');
  }
}
