import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * What waits and what failed is found task by task: of a task for which nothing can be scored now, millions of texts may
 * wait before those of others. A million rows take some seconds, during which texts are read and not taken.
 */
export class StreamClaims1795880000001 implements MigrationInterface {
  name = 'StreamClaims1795880000001';

  async up(query: QueryRunner): Promise<void> {
    await query.query('DROP INDEX stream_item_pending_idx');
    await query.query(`CREATE INDEX stream_item_pending_idx ON stream_item (task, seq) WHERE state = 'PENDING'`);
    await query.query(`CREATE INDEX stream_item_failed_idx ON stream_item (task, seq) WHERE state = 'FAILED'`);
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('DROP INDEX stream_item_failed_idx');
    await query.query('DROP INDEX stream_item_pending_idx');
    await query.query(`CREATE INDEX stream_item_pending_idx ON stream_item (seq) WHERE state = 'PENDING'`);
  }
}
