import { Inject, Injectable } from '@nestjs/common';
import { DataSource, In } from 'typeorm';
import type { KeyedItem } from './entities/item-columns.js';
import { StreamItemRow, type StreamItemState } from './entities/stream-item.js';
import type { Tx } from './transactions.js';

export interface NewStreamItem extends KeyedItem {
  externalId: string;
  metadata: Record<string, unknown> | null;
}

export type StreamItemOutcome =
  | { seq: string; state: 'SCORED'; prediction: object; modelVersion: number }
  | { seq: string; state: 'FAILED'; code: string; message: string }
  /** Not this item's fault, as far as one can tell: tried again alone, later. */
  | { seq: string; state: 'PENDING'; code: string; message: string; retryAfterMs: number };

@Injectable()
export class StreamItemsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /**
   * Returns how many were new; an id that the task has seen is left as it is. They are numbered as they are given, and
   * written in the order of their ids, so that two calls which share some never wait for each other.
   */
  async insert(task: string, items: NewStreamItem[]): Promise<number> {
    const rows = await this.dataSource.manager.query<unknown[]>(
      `WITH given AS (
         SELECT nextval('stream_item_seq_seq') AS seq, r.*
         FROM jsonb_to_recordset($2::jsonb) AS r("externalId" text, "itemKey" text, "splitGroup" text, text text,
              "textPair" text, choices jsonb, fields jsonb, metadata jsonb))
       INSERT INTO stream_item (seq, task, external_id, item_key, split_group, text, text_pair, choices, fields, metadata)
       SELECT r.seq, $1, r."externalId", r."itemKey", r."splitGroup", r.text, r."textPair",
              nullif(r.choices, 'null'::jsonb), nullif(r.fields, 'null'::jsonb), nullif(r.metadata, 'null'::jsonb)
       FROM given AS r ORDER BY r."externalId"
       ON CONFLICT (task, external_id) DO NOTHING RETURNING seq`,
      [task, JSON.stringify(items)],
    );
    return rows.length;
  }

  /**
   * Claims the oldest pending items of one task and holds them until the transaction ends; other workers pass over
   * them. An item that was tried before comes alone, so that it cannot take others down with it again.
   */
  async claim(limit: number, exceptTasks: string[], tx: Tx): Promise<StreamItemRow[]> {
    const ready = `state = 'PENDING' AND (retry_at IS NULL OR retry_at <= now())`;
    const [first] = await tx.query<{ seq: string; task: string; attempts: number }[]>(
      `SELECT seq, task, attempts FROM stream_item WHERE ${ready} AND NOT task = ANY($1)
       ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED`,
      [exceptTasks],
    );
    if (!first) return [];
    if (first.attempts > 0) return tx.findBy(StreamItemRow, { seq: first.seq });
    const rows = await tx.query<{ seq: string }[]>(
      `SELECT seq FROM stream_item WHERE ${ready} AND task = $1 AND attempts = 0
       ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED`,
      [first.task, limit],
    );
    return tx.find(StreamItemRow, { where: { seq: In(rows.map((row) => row.seq)) }, order: { seq: 'ASC' } });
  }

  async record(outcomes: StreamItemOutcome[], tx: Tx): Promise<void> {
    await tx.query(
      `UPDATE stream_item AS s SET
         state = r.state, error_code = r.code, error_message = r.message,
         prediction = nullif(r.prediction, 'null'::jsonb), model_version = r."modelVersion",
         attempts = s.attempts + 1,
         retry_at = now() + r."retryAfterMs" * interval '1 millisecond',
         scored_at = CASE WHEN r.state = 'SCORED' THEN now() END
       FROM jsonb_to_recordset($1::jsonb) AS r(seq bigint, state text, code text, message text, prediction jsonb,
            "modelVersion" integer, "retryAfterMs" double precision)
       WHERE s.seq = r.seq`,
      [JSON.stringify(outcomes)],
    );
  }

  /** Those that wait are found by an index of them alone: there may be millions of others. */
  async countPending(task: string): Promise<number> {
    const [row] = await this.dataSource.manager.query<[{ count: number }]>(
      `SELECT count(*)::int AS count FROM stream_item WHERE task = $1 AND state = 'PENDING'`,
      [task],
    );
    return row.count;
  }

  async countDone(task: string): Promise<Record<Exclude<StreamItemState, 'PENDING'>, number>> {
    const [row] = await this.dataSource.manager.query<[{ SCORED: number; FAILED: number }]>(
      `SELECT count(*) FILTER (WHERE state = 'SCORED')::int AS "SCORED",
         count(*) FILTER (WHERE state = 'FAILED')::int AS "FAILED"
       FROM stream_item WHERE task = $1 AND state <> 'PENDING'`,
      [task],
    );
    return row;
  }

  /** Of all tasks: items that wait, and since when the oldest does, in seconds. */
  async backlog(): Promise<{ pending: number; oldestSeconds: number }> {
    const [row] = await this.dataSource.manager.query<[{ pending: number; oldestSeconds: number }]>(
      `SELECT count(*)::int AS pending,
         coalesce(extract(epoch FROM now() - min(received_at)), 0)::float8 AS "oldestSeconds"
       FROM stream_item WHERE state = 'PENDING'`,
    );
    return row;
  }

  /** Oldest first. */
  failed(task: string, limit: number): Promise<StreamItemRow[]> {
    return this.dataSource.manager.find(StreamItemRow, {
      where: { task, state: 'FAILED' },
      order: { seq: 'ASC' },
      take: limit,
    });
  }

  /** The oldest, as if they had just come in. Returns how many. */
  async retryFailed(task: string, limit: number): Promise<number> {
    const [, count] = await this.dataSource.manager.query<[unknown, number]>(
      `UPDATE stream_item SET state = 'PENDING', attempts = 0, retry_at = NULL, error_code = NULL, error_message = NULL
       WHERE seq IN (SELECT seq FROM stream_item WHERE task = $1 AND state = 'FAILED' ORDER BY seq LIMIT $2)`,
      [task, limit],
    );
    return count;
  }

  async deleteFailed(task: string, limit: number): Promise<number> {
    const [, count] = await this.dataSource.manager.query<[unknown, number]>(
      `DELETE FROM stream_item
       WHERE seq IN (SELECT seq FROM stream_item WHERE task = $1 AND state = 'FAILED' ORDER BY seq LIMIT $2)`,
      [task, limit],
    );
    return count;
  }

  /**
   * Deletes up to `batch` of the oldest that were scored `before` or of which newer `keep` are there, and of those that
   * failed and came `failedBefore`; counted they stay (stream_pruned). Null: no limit. Returns how many.
   */
  async prune(
    task: string,
    { before, failedBefore, keep }: { before: Date | null; failedBefore: Date | null; keep: number | null },
    batch: number,
  ): Promise<number> {
    const [row] = await this.dataSource.manager.query<[{ count: number }]>(
      `WITH bound AS (
         SELECT max(seq) AS seq FROM (
           SELECT seq FROM stream_item WHERE task = $1 AND state <> 'PENDING' ORDER BY seq DESC OFFSET $4 LIMIT 1) AS kept
         WHERE $4::bigint IS NOT NULL),
       oldest AS (
         SELECT seq FROM stream_item
         WHERE task = $1 AND state <> 'PENDING'
           AND ((state = 'SCORED' AND (scored_at < $2 OR seq <= (SELECT seq FROM bound)))
             OR (state = 'FAILED' AND received_at < $3))
         ORDER BY seq LIMIT $5 FOR UPDATE SKIP LOCKED),
       gone AS (DELETE FROM stream_item WHERE seq IN (SELECT seq FROM oldest) RETURNING state),
       counted AS (
         INSERT INTO stream_pruned AS p (task, state, count) SELECT $1, state, count(*) FROM gone GROUP BY state ORDER BY state
         ON CONFLICT (task, state) DO UPDATE SET count = p.count + excluded.count)
       SELECT count(*)::int AS count FROM gone`,
      [task, before, failedBefore, keep, batch],
    );
    return row.count;
  }

  findByExternalId(task: string, externalId: string, tx?: Tx): Promise<StreamItemRow | null> {
    return (tx ?? this.dataSource.manager).findOneBy(StreamItemRow, { task, externalId });
  }

  async deleteGroup(task: string, splitGroup: string, tx: Tx): Promise<number> {
    return (await tx.delete(StreamItemRow, { task, splitGroup })).affected ?? 0;
  }
}
