import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { StreamRecordRow } from './entities/stream-record.js';
import type { Tx } from './transactions.js';

/** Where records of one batch come from. */
export interface RecordSource {
  clusterId: string;
  topicId: string;
  topic: string;
  partition: number;
}

export type NewStreamRecord = Omit<StreamRecordRow, keyof RecordSource | 'scoredAt' | 'recordedAt'> & {
  /** ISO 8601. */
  recordedAt: string;
};

/** Of one source, which rows may go. */
export interface PruneLimits {
  /** Offsets. */
  below: bigint;
  /** Offsets below which age does not matter; null: there are none. */
  anyAgeBelow: bigint | null;
  /** Rows that were scored earlier are old; null: none is. */
  before: Date | null;
}

/** In the order of the statement's arrays. */
const COLUMNS = [
  'offset',
  'recordedAt',
  'task',
  'externalId',
  'splitGroup',
  'state',
  'label',
  'confidence',
  'route',
  'modelVersion',
  'errorCode',
  'errorMessage',
] as const satisfies readonly (keyof NewStreamRecord)[];

const LONGEST_IDLE_MS = 5_000;

@Injectable()
export class StreamRecordsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /** A worker that is stopped within its transaction would hold the pool's lock until it is woken: the server ends it. */
  async boundIdleTime(tx: Tx): Promise<void> {
    await tx.query(`SET LOCAL idle_in_transaction_session_timeout = ${LONGEST_IDLE_MS}`);
  }

  /**
   * Idempotent by the records' places; a place that is known takes the newest outcome. Returns how many were written:
   * fewer than given where a known place holds a record of another time.
   */
  async upsert(source: RecordSource, records: NewStreamRecord[], tx: Tx): Promise<number> {
    const { clusterId, topicId, topic, partition } = source;
    const column = <K extends keyof NewStreamRecord>(name: K) => records.map((record) => record[name]);
    // By arrays: PostgreSQL takes a quarter less time over them than over JSON.
    const [result] = await tx.query<{ written: number }[]>(
      `WITH written AS (INSERT INTO stream_record AS s (cluster_id, topic_id, topic, partition, "offset", recorded_at, task, external_id,
         split_group, state, label, confidence, route, model_version, error_code, error_message)
       SELECT $1, $2, $3, $4, r."offset", r."recordedAt", r.task, r."externalId", r."splitGroup", r.state, r.label,
         r.confidence, r.route, r."modelVersion", r."errorCode", r."errorMessage"
       FROM unnest($5::bigint[], $6::timestamptz[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
         $12::double precision[], $13::text[], $14::integer[], $15::text[], $16::text[])
         AS r("offset", "recordedAt", task, "externalId", "splitGroup", state, label, confidence, route,
         "modelVersion", "errorCode", "errorMessage")
       ON CONFLICT (cluster_id, topic_id, partition, "offset") DO UPDATE SET task = excluded.task,
         external_id = excluded.external_id, split_group = excluded.split_group, state = excluded.state,
         label = excluded.label, confidence = excluded.confidence, route = excluded.route,
         model_version = excluded.model_version, error_code = excluded.error_code,
         error_message = excluded.error_message, scored_at = excluded.scored_at
       WHERE s.recorded_at = excluded.recorded_at
       RETURNING 1)
       SELECT count(*)::int AS written FROM written`,
      [clusterId, topicId, topic, partition, ...COLUMNS.map(column)],
    );
    return result!.written;
  }

  /** Every partition of every topic that the history knows, found by leaps through the primary key. */
  sources(): Promise<RecordSource[]> {
    return this.dataSource.manager.query(
      `WITH RECURSIVE source AS (
         (SELECT cluster_id, topic_id, partition, topic FROM stream_record
          ORDER BY cluster_id, topic_id, partition LIMIT 1)
         UNION ALL
         SELECT next.* FROM source s, LATERAL (
           SELECT r.cluster_id, r.topic_id, r.partition, r.topic FROM stream_record r
           WHERE (r.cluster_id, r.topic_id, r.partition) > (s.cluster_id, s.topic_id, s.partition)
           ORDER BY r.cluster_id, r.topic_id, r.partition LIMIT 1) AS next)
       SELECT cluster_id AS "clusterId", topic_id AS "topicId", partition, topic FROM source`,
    );
  }

  /**
   * Deletes up to `batch` of the oldest rows that may go, and adds them to what was counted. Returns how many; fewer than
   * `batch` where the next one is too young. Rows that somebody holds are passed over.
   */
  async prune(source: RecordSource, { below, anyAgeBelow, before }: PruneLimits, batch: number): Promise<number> {
    const { clusterId, topicId, partition } = source;
    const [row] = await this.dataSource.manager.query<[{ count: number }]>(
      `WITH oldest AS (
         SELECT ctid FROM stream_record
         WHERE cluster_id = $1 AND topic_id = $2 AND partition = $3 AND "offset" < $4
         ORDER BY "offset" LIMIT $7 FOR UPDATE SKIP LOCKED),
       gone AS (
         DELETE FROM stream_record
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM oldest)) AND ("offset" < $5 OR scored_at < $6)
         RETURNING task, state),
       counted AS (
         INSERT INTO stream_pruned AS p (task, state, count)
         SELECT task, state, count(*) FROM gone WHERE task IS NOT NULL GROUP BY task, state ORDER BY task, state
         ON CONFLICT (task, state) DO UPDATE SET count = p.count + excluded.count)
       SELECT count(*)::int AS count FROM gone`,
      [clusterId, topicId, partition, String(below), anyAgeBelow === null ? null : String(anyAgeBelow), before, batch],
    );
    return row.count;
  }

  /** As numbers of more than 32 bits: what was pruned counts for ever. */
  async countByState(task: string): Promise<Record<StreamRecordRow['state'], number>> {
    const rows = await this.dataSource.manager.query<{ state: StreamRecordRow['state']; count: number }[]>(
      `SELECT state, sum(count)::float8 AS count FROM (
         SELECT state, count(*) AS count FROM stream_record WHERE task = $1 GROUP BY state
         UNION ALL SELECT state, count FROM stream_pruned WHERE task = $1) AS counted
       GROUP BY state`,
      [task],
    );
    const counts = { SCORED: 0, FAILED: 0 };
    for (const row of rows) counts[row.state] = row.count;
    return counts;
  }

  /** Split groups of the records that had the producer's id, the newest first: in Kafka an id may come again. */
  async groupsOf(task: string, externalId: string): Promise<string[]> {
    const rows = await this.dataSource.manager.query<{ group: string }[]>(
      `SELECT split_group AS "group" FROM stream_record
       WHERE task = $1 AND external_id = $2 AND split_group IS NOT NULL GROUP BY split_group ORDER BY max(scored_at) DESC`,
      [task, externalId],
    );
    return rows.map(({ group }) => group);
  }

  /** Rows that somebody is writing right now are passed over. */
  async deleteGroup(task: string, splitGroup: string, tx: Tx): Promise<number> {
    const [, count] = await tx.query<[unknown, number]>(
      `DELETE FROM stream_record WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM stream_record WHERE task = $1 AND split_group = $2 FOR UPDATE SKIP LOCKED))`,
      [task, splitGroup],
    );
    return count;
  }
}
