import type { MigrationInterface, QueryRunner } from 'typeorm';

const UP = [
  `CREATE TABLE stream_record (
    cluster_id text NOT NULL,
    topic_id text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    topic text NOT NULL,
    recorded_at timestamptz NOT NULL,
    task text,
    external_id text,
    split_group text,
    state text NOT NULL,
    label text,
    confidence double precision,
    route text,
    model_version integer,
    error_code text,
    error_message text,
    scored_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT stream_record_pkey PRIMARY KEY (cluster_id, topic_id, partition, "offset"))`,
  `CREATE INDEX stream_record_task_split_group_idx ON stream_record (task, split_group)`,
  `CREATE INDEX stream_record_task_external_id_idx ON stream_record (task, external_id)`,
  `CREATE TABLE outbox_event (
    seq bigserial NOT NULL,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    type text NOT NULL,
    task text NOT NULL,
    data jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT outbox_event_pkey PRIMARY KEY (seq))`,
];

const DOWN = [`DROP TABLE outbox_event, stream_record`];

export class Kafka1795530000000 implements MigrationInterface {
  name = 'Kafka1795530000000';

  async up(query: QueryRunner): Promise<void> {
    for (const statement of UP) await query.query(statement);
  }

  async down(query: QueryRunner): Promise<void> {
    for (const statement of DOWN) await query.query(statement);
  }
}
