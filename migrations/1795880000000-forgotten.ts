import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Of each batch of Kafka's records it is asked which texts were forgotten. */
export class Forgotten1795880000000 implements MigrationInterface {
  name = 'Forgotten1795880000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query(
      `CREATE INDEX ledger_entry_forgotten_idx ON ledger_entry (task, (body ->> 'digest')) WHERE kind = 'forgotten'`,
    );
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('DROP INDEX ledger_entry_forgotten_idx');
  }
}
