import type { MigrationInterface, QueryRunner } from 'typeorm';

/** By which query strategy a question was asked; what the embedded stream's history is pruned and questions are counted by. */
export class Strategies1795840000000 implements MigrationInterface {
  name = 'Strategies1795840000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query('ALTER TABLE candidate ADD leased_strategy text');
    await query.query('ALTER TABLE answer ADD strategy text');
    await query.query('ALTER TABLE example ADD strategy text');
    await query.query(
      `CREATE INDEX candidate_asked_idx ON candidate (task) WHERE state <> 'OPEN' AND served_by IS NULL`,
    );
    await query.query(`CREATE INDEX stream_item_done_idx ON stream_item (task, seq) WHERE state <> 'PENDING'`);
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('DROP INDEX stream_item_done_idx, candidate_asked_idx');
    await query.query('ALTER TABLE example DROP strategy');
    await query.query('ALTER TABLE answer DROP strategy');
    await query.query('ALTER TABLE candidate DROP leased_strategy');
  }
}
