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

type ItemHead = Pick<StreamItemRow, 'seq' | 'task' | 'attempts'>;

/** So many times a batch are looked at, so that one is left that no other worker holds. */
const LOOKED_AT = 4;
const READY = `s.state = 'PENDING' AND (s.retry_at IS NULL OR s.retry_at <= now())`;

/**
 * To be ordered by task and seq. Of an equation PostgreSQL knows that seq alone is the order, which the primary key has
 * too, and may walk through the items of all tasks: it takes a task's share of those that wait for its share of all.
 */
const ofTask = (name: string): string => `s.task BETWEEN ${name} AND ${name}`;
const FAILED = `SELECT s.seq FROM stream_item AS s WHERE ${ofTask('$1')} AND s.state = 'FAILED' ORDER BY s.task, s.seq LIMIT $2`;

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
    const first = await this.oldest(LOOKED_AT * limit, exceptTasks, tx);
    if (!first) return [];
    if (first.attempts > 0) return tx.findBy(StreamItemRow, { seq: first.seq });
    const rows = await tx.query<{ seq: string }[]>(
      `SELECT s.seq FROM stream_item AS s WHERE ${READY} AND ${ofTask('$1')} AND s.attempts = 0
       ORDER BY s.task, s.seq LIMIT $2 FOR UPDATE SKIP LOCKED`,
      [first.task, limit],
    );
    return tx.find(StreamItemRow, { where: { seq: In(rows.map((row) => row.seq)) }, order: { seq: 'ASC' } });
  }

  /** Of the items that are ready, of all tasks but these, the oldest that nobody holds; it is held from now on. */
  private async oldest(most: number, exceptTasks: string[], tx: Tx): Promise<ItemHead | undefined> {
    const ready = await tx.query<{ seq: string }[]>(
      `SELECT r.seq FROM task AS t CROSS JOIN LATERAL (
         SELECT s.seq FROM stream_item AS s WHERE ${READY} AND ${ofTask('t.name')} ORDER BY s.task, s.seq LIMIT $2) AS r
       WHERE NOT t.name = ANY($1) ORDER BY r.seq LIMIT $2`,
      [exceptTasks, most],
    );
    if (ready.length === 0) return undefined;
    const [free] = await tx.query<ItemHead[]>(
      `SELECT s.seq, s.task, s.attempts FROM stream_item AS s WHERE s.seq = ANY($1) AND ${READY}
       ORDER BY s.seq LIMIT 1 FOR UPDATE SKIP LOCKED`,
      [ready.map(({ seq }) => seq)],
    );
    // Others hold all of them: there may be more behind.
    return free || ready.length < most ? free : this.oldest(LOOKED_AT * most, exceptTasks, tx);
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
      `SELECT count(*)::float8 AS count FROM stream_item WHERE task = $1 AND state = 'PENDING'`,
      [task],
    );
    return row.count;
  }

  async countDone(task: string): Promise<Record<Exclude<StreamItemState, 'PENDING'>, number>> {
    const [row] = await this.dataSource.manager.query<[{ SCORED: number; FAILED: number }]>(
      `SELECT count(*) FILTER (WHERE state = 'SCORED')::float8 AS "SCORED",
         count(*) FILTER (WHERE state = 'FAILED')::float8 AS "FAILED"
       FROM stream_item WHERE task = $1 AND state <> 'PENDING'`,
      [task],
    );
    return row;
  }

  async countFailed(task: string): Promise<number> {
    const [row] = await this.dataSource.manager.query<[{ count: number }]>(
      `SELECT count(*)::int AS count FROM stream_item WHERE task = $1 AND state = 'FAILED'`,
      [task],
    );
    return row.count;
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
  async failed(task: string, limit: number): Promise<StreamItemRow[]> {
    const rows = await this.dataSource.manager.query<{ seq: string }[]>(FAILED, [task, limit]);
    return this.dataSource.manager.find(StreamItemRow, {
      where: { seq: In(rows.map((row) => row.seq)) },
      order: { seq: 'ASC' },
    });
  }

  /** The oldest, as if they had just come in. Returns how many. */
  async retryFailed(task: string, limit: number): Promise<number> {
    const [, count] = await this.dataSource.manager.query<[unknown, number]>(
      `UPDATE stream_item SET state = 'PENDING', attempts = 0, retry_at = NULL, error_code = NULL, error_message = NULL
       WHERE seq IN (${FAILED})`,
      [task, limit],
    );
    return count;
  }

  async deleteFailed(task: string, limit: number): Promise<number> {
    const [, count] = await this.dataSource.manager.query<[unknown, number]>(
      `DELETE FROM stream_item
       WHERE seq IN (${FAILED})`,
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
