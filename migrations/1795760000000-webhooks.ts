import type { MigrationInterface, QueryRunner } from 'typeorm';

export class Webhooks1795760000000 implements MigrationInterface {
  name = 'Webhooks1795760000000';

  async up(query: QueryRunner): Promise<void> {
    await query.query(`CREATE TABLE webhook_delivery (
      seq bigserial NOT NULL,
      url text NOT NULL,
      event jsonb NOT NULL,
      attempts integer NOT NULL DEFAULT 0,
      due_at timestamptz NOT NULL DEFAULT now(),
      CONSTRAINT webhook_delivery_pkey PRIMARY KEY (seq))`);
    await query.query('CREATE INDEX webhook_delivery_due_idx ON webhook_delivery (due_at)');
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query('DROP TABLE webhook_delivery');
  }
}
