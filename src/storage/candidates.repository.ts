import { Inject, Injectable } from '@nestjs/common';
import { DataSource, IsNull, Not } from 'typeorm';
import { CandidateRow, PREDICTED_LABEL_LENGTH, type CheckReason } from './entities/candidate.js';
import type { KeyedItem, SplitValue } from './entities/item-columns.js';
import { RENAMED_LABELS } from './renamed-labels.js';
import type { Tx } from './transactions.js';

/** What is stored of a prediction, beside the whole of it. */
export interface CandidateScore {
  itemKey: string;
  prediction: object;
  modelVersion: number;
  predictedLabel: string | null;
  confidence: number;
  margin: number;
  entropy: number;
  voteEntropy: number;
  jensenShannon: number;
  dissenting: number;
  route: 'ACCEPT' | 'REVIEW';
}

export interface NewCandidate extends KeyedItem, CandidateScore {
  nearGroup: string;
  bands: number[] | null;
  split: SplitValue;
  audit: boolean;
  reservoirRank: number | null;
}

/** How a question was answered, and whether it is to be answered again. */
export type CandidateAnswer = Pick<
  CandidateRow,
  'state' | 'labels' | 'skipReason' | 'answeredBy' | 'answeredAt' | 'reason' | 'priority'
>;

export interface PoolCounts {
  total: number;
  contested: number;
  awaitingReview: number;
  labelled: number;
  outdated: number;
}

const SCORE_COLUMNS = `"itemKey" text, prediction jsonb, "modelVersion" integer, "predictedLabel" text, confidence double precision,
  margin double precision, entropy double precision, "voteEntropy" double precision, "jensenShannon" double precision,
  dissenting integer, route text`;
const PREDICTED_LABEL = `left(r."predictedLabel", ${PREDICTED_LABEL_LENGTH})`;

@Injectable()
export class CandidatesRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  find(id: string, tx?: Tx): Promise<CandidateRow | null> {
    return (tx ?? this.dataSource.manager).findOneBy(CandidateRow, { id });
  }

  findByKey(task: string, itemKey: string, tx: Tx): Promise<CandidateRow | null> {
    return tx.findOneBy(CandidateRow, { task, itemKey });
  }

  /** Holds the row until the transaction ends. */
  lock(id: string, tx: Tx): Promise<CandidateRow | null> {
    return tx.findOne(CandidateRow, { where: { id }, lock: { mode: 'pessimistic_write' } });
  }

  /** One admission to a task's pool at a time, until the transaction ends: its bounds are counted once. */
  async lockPool(task: string, tx: Tx): Promise<void> {
    await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended('pool:' || $1, 0))`, [task]);
  }

  /** Idempotent by item key; a known open row takes the prediction of a version that is no older, or is the active one. */
  async upsert(task: string, rows: NewCandidate[], tx: Tx): Promise<void> {
    await tx.query(
      `INSERT INTO candidate (task, item_key, split_group, near_group, bands, split, text, text_pair, choices, fields,
         prediction, model_version, predicted_label, confidence, margin, entropy, vote_entropy, jensen_shannon, dissenting, route, audit,
         reservoir_rank, served_prediction)
       SELECT $1, r."itemKey", r."splitGroup", r."nearGroup", r.bands, r.split, r.text, r."textPair", nullif(r.choices, 'null'::jsonb),
         nullif(r.fields, 'null'::jsonb), r.prediction, r."modelVersion", ${PREDICTED_LABEL}, r.confidence,
         r.margin, r.entropy, r."voteEntropy", r."jensenShannon", r.dissenting, r.route, r.audit, r."reservoirRank",
         CASE WHEN r.audit THEN r.prediction END
       FROM jsonb_to_recordset($2::jsonb) AS r(${SCORE_COLUMNS}, "splitGroup" text, "nearGroup" text,
         bands integer[], split text, text text, "textPair" text, choices jsonb, fields jsonb, audit boolean, "reservoirRank" double precision)
       ORDER BY r."itemKey"
       ON CONFLICT (task, item_key) DO UPDATE SET prediction = excluded.prediction,
         model_version = excluded.model_version, predicted_label = excluded.predicted_label,
         confidence = excluded.confidence, margin = excluded.margin, entropy = excluded.entropy, vote_entropy = excluded.vote_entropy,
         jensen_shannon = excluded.jensen_shannon, dissenting = excluded.dissenting, route = excluded.route, reservoir_rank = excluded.reservoir_rank,
         served_prediction = excluded.served_prediction
       WHERE candidate.state = 'OPEN' AND (candidate.model_version <= excluded.model_version
         OR excluded.model_version = (SELECT active_version FROM task WHERE name = $1))`,
      [task, JSON.stringify(rows)],
    );
  }

  /** Of the keys, those that are in the pool. */
  async knownKeys(task: string, keys: string[], tx: Tx): Promise<Set<string>> {
    const rows = await tx.query<{ key: string }[]>(
      `SELECT item_key AS key FROM candidate WHERE task = $1 AND item_key = ANY($2)`,
      [task, keys],
    );
    return new Set(rows.map(({ key }) => key));
  }

  async predictions(task: string, keys: string[]): Promise<Map<string, object>> {
    const rows = await this.dataSource.manager.query<{ key: string; prediction: object }[]>(
      `SELECT item_key AS key, prediction FROM candidate WHERE task = $1 AND item_key = ANY($2)`,
      [task, keys],
    );
    return new Map(rows.map(({ key, prediction }) => [key, prediction]));
  }

  /** Open rows without a reason that nobody is answering are asked for this one; how many. */
  async askAbout(
    task: string,
    reason: CheckReason,
    questions: { itemKey: string; priority: number }[],
  ): Promise<number> {
    const asked = await this.dataSource.manager.query<[unknown[], number]>(
      `UPDATE candidate AS c SET reason = $2, priority = r.priority
       FROM jsonb_to_recordset($3::jsonb) AS r("itemKey" text, priority double precision)
       WHERE c.task = $1 AND c.item_key = r."itemKey" AND c.state = 'OPEN' AND c.reason IS NULL
         AND (c.leased_until IS NULL OR c.leased_until < now())`,
      [task, reason, JSON.stringify(questions)],
    );
    return asked[1];
  }

  /**
   * Of those that lead a group of near-duplicates, who share one of the bands; at most so many of each. Only pools of
   * earlier releases have more.
   */
  leaders(
    task: string,
    bands: number[],
    ofEach: number,
    tx: Tx,
  ): Promise<{ nearGroup: string; text: string; bands: number[] }[]> {
    return tx.query<{ nearGroup: string; text: string; bands: number[] }[]>(
      `SELECT DISTINCT ON (l.id) l.near_group AS "nearGroup", l.text, l.bands
       FROM unnest($2::integer[]) AS b(band) CROSS JOIN LATERAL (
         SELECT id, near_group, text, bands FROM candidate WHERE task = $1 AND bands @> ARRAY[b.band] LIMIT $3) AS l
       ORDER BY l.id`,
      [task, bands, ofEach],
    );
  }

  /** The highest rank inside a full reservoir; null while there is room. */
  async reservoirBound(task: string, size: number, tx: Tx): Promise<number | null> {
    const [row] = await tx.query<{ rank: number }[]>(
      `SELECT reservoir_rank AS rank FROM candidate WHERE task = $1 AND reservoir_rank IS NOT NULL
       ORDER BY reservoir_rank OFFSET $2 LIMIT 1`,
      [task, size - 1],
    );
    return row?.rank ?? null;
  }

  /** What is beyond the size leaves the reservoir, not the pool. */
  async trimReservoir(task: string, size: number, tx: Tx): Promise<void> {
    await tx.query(
      `UPDATE candidate SET reservoir_rank = NULL WHERE id IN (
         SELECT id FROM candidate WHERE task = $1 AND reservoir_rank IS NOT NULL
         ORDER BY reservoir_rank, item_key OFFSET $2)`,
      [task, size],
    );
  }

  async count(task: string, tx: Tx): Promise<number> {
    const [row] = await tx.query<{ total: number }[]>(`SELECT count(*)::int AS total FROM candidate WHERE task = $1`, [
      task,
    ]);
    return row!.total;
  }

  /**
   * At most so many: confident, unanimous, old rows go; the audit slice, the reservoir, what is being answered, to be
   * checked or answered stays.
   */
  async evict(task: string, surplus: number, tx: Tx): Promise<void> {
    await tx.query(
      `DELETE FROM candidate WHERE id IN (
         SELECT id FROM candidate WHERE task = $1 AND state = 'OPEN' AND NOT audit AND reservoir_rank IS NULL
           AND reason IS NULL AND (leased_until IS NULL OR leased_until < now())
         ORDER BY (route = 'REVIEW'), (dissenting > 0), confidence DESC, received_at, id
         LIMIT $2)`,
      [task, surplus],
    );
  }

  /**
   * Open rows whose prediction is of another version, where this one is active: a replica that has yet to follow leaves
   * them. The likeliest questions come first. That there are none is seen at the two ends of candidate_version_idx: answered
   * rows keep the versions of their day, and by their statistics the planner would look for others through the whole pool.
   */
  findStale(task: string, version: number, limit: number): Promise<CandidateRow[]> {
    return this.dataSource.manager
      .createQueryBuilder(CandidateRow, 'candidate')
      .where(`candidate.task = :task AND candidate.state = 'OPEN'`)
      .andWhere('(candidate.modelVersion < :version OR candidate.modelVersion > :version)')
      .andWhere(':version = (SELECT active_version FROM task WHERE name = :task)')
      .andWhere(
        `(SELECT min(model_version) <> :version OR max(model_version) <> :version
          FROM candidate WHERE task = :task AND state = 'OPEN')`,
      )
      .setParameters({ task, version })
      .orderBy({ 'candidate.margin': 'ASC', 'candidate.confidence': 'ASC', 'candidate.id': 'ASC' })
      .take(limit)
      .getMany();
  }

  async updateScores(task: string, scores: CandidateScore[]): Promise<void> {
    await this.dataSource.manager.query(
      `UPDATE candidate AS c SET prediction = r.prediction, model_version = r."modelVersion",
         predicted_label = ${PREDICTED_LABEL}, confidence = r.confidence, margin = r.margin, entropy = r.entropy, vote_entropy = r."voteEntropy",
         jensen_shannon = r."jensenShannon", dissenting = r.dissenting, route = r.route
       FROM jsonb_to_recordset($2::jsonb) AS r(${SCORE_COLUMNS})
       WHERE c.task = $1 AND c.item_key = r."itemKey" AND c.state = 'OPEN'`,
      [task, JSON.stringify(scores)],
    );
  }

  async counts(task: string, activeVersion: number | null): Promise<PoolCounts> {
    const [row] = await this.dataSource.manager.query<PoolCounts[]>(
      `SELECT count(*)::int AS total,
         (count(*) FILTER (WHERE dissenting > 0))::int AS contested,
         (count(*) FILTER (WHERE state = 'OPEN' AND (route = 'REVIEW' OR audit)))::int AS "awaitingReview",
         (count(*) FILTER (WHERE state = 'LABELLED'))::int AS labelled,
         (count(*) FILTER (WHERE state = 'OPEN' AND model_version <> $2))::int AS outdated
       FROM candidate WHERE task = $1`,
      [task, activeVersion],
    );
    return row!;
  }

  /** How many questions were answered, skipped, or are held by others than `by`; near-duplicates that were closed are none. */
  async countAsked(task: string, by: string): Promise<number> {
    const [row] = await this.dataSource.manager.query<{ count: number }[]>(
      `SELECT (SELECT count(*) FROM candidate WHERE task = $1 AND state <> 'OPEN' AND served_by IS NULL)::int
         + (SELECT count(*) FROM candidate WHERE task = $1 AND leased_until > now() AND leased_by <> $2
           AND state = 'OPEN')::int AS count`,
      [task, by],
    );
    return row!.count;
  }

  /** Nobody is answering it any more. */
  async setAnswer(id: string, answer: CandidateAnswer, tx: Tx): Promise<void> {
    await tx.update(CandidateRow, { id }, { ...answer, leasedBy: null, leasedUntil: null, leasedStrategy: null });
  }

  /**
   * Closes the open near-duplicates that a strategy could ask about, with its answer. Held-out rows and the audit's are
   * asked for themselves. Rows that somebody else holds right now stay open, and are not asked as long as it is not.
   */
  async serve({ id, task, nearGroup }: CandidateRow, labels: string[], by: string, tx: Tx): Promise<void> {
    await tx.query(
      `UPDATE candidate SET state = 'LABELLED', labels = $4, answered_by = $5, answered_at = now(), served_by = $3
       WHERE id IN (
         SELECT id FROM candidate WHERE task = $1 AND near_group = $2 AND id <> $3
           AND (served_by = $3 OR (state = 'OPEN' AND split = 'train' AND NOT audit AND reason IS NULL))
         FOR UPDATE SKIP LOCKED)`,
      [task, nearGroup, id, labels, by],
    );
  }

  /** The answers to these, which closed them, are there no more. */
  async reopenServed(ids: string[], tx: Tx): Promise<void> {
    await tx.query(
      `UPDATE candidate SET state = 'OPEN', labels = NULL, answered_by = NULL, answered_at = NULL, served_by = NULL
       WHERE served_by = ANY($1)`,
      [ids],
    );
  }

  /** Those of the ids that nobody else holds, held by `by` from now on; the others are left as they are. */
  async lease(ids: string[], by: string, seconds: number, strategy: string | null, tx: Tx): Promise<Set<string>> {
    const rows = await tx.query<{ id: string }[]>(
      `WITH free AS (
         SELECT id FROM candidate
         WHERE id = ANY($1) AND (leased_until IS NULL OR leased_until < now() OR leased_by = $2)
           AND (state = 'OPEN' OR reason IS NOT NULL) -- it may have been answered since the page was read
         FOR UPDATE SKIP LOCKED),
       held AS (
         UPDATE candidate SET leased_by = $2, leased_until = now() + make_interval(secs => $3), leased_strategy = $4
         WHERE id IN (SELECT id FROM free) RETURNING id)
       SELECT id FROM held`,
      [ids, by, seconds, strategy],
    );
    return new Set(rows.map(({ id }) => id));
  }

  async release(task: string, by: string): Promise<void> {
    await this.dataSource.manager.update(
      CandidateRow,
      { task, leasedBy: by, leasedUntil: Not(IsNull()) },
      { leasedBy: null, leasedUntil: null, leasedStrategy: null },
    );
  }

  /** A group's split was set by an import: its candidates follow, and leave the reservoir where they may not be in it. */
  async setGroupSplits(task: string, splits: ReadonlyMap<string, SplitValue>, tx: Tx): Promise<void> {
    await tx.query(
      `UPDATE candidate AS c SET split = r.split,
         reservoir_rank = CASE WHEN r.split = 'train' THEN c.reservoir_rank END
       FROM jsonb_each_text($2::jsonb) AS r("group", split)
       WHERE c.task = $1 AND c.split_group = r."group" AND c.split <> r.split`,
      [task, JSON.stringify(Object.fromEntries(splits))],
    );
  }

  async renameLabels(task: string, renames: ReadonlyMap<string, string>, tx: Tx): Promise<void> {
    for (const [from, to] of renames) {
      await tx.query(`UPDATE candidate SET labels = ${RENAMED_LABELS} WHERE task = $1 AND $2 = ANY(labels)`, [
        task,
        from,
        to,
      ]);
    }
  }

  /**
   * Up to `batch` that came before and that nobody labelled, those that an answer closed among them. What was closed by
   * the first of answers that differ, and is younger, is open again. Returns how many are gone.
   */
  eraseUnlabelled(task: string, before: Date, batch: number): Promise<number> {
    return this.dataSource.transaction(async (tx) => {
      const [gone] = await tx.query<[{ id: string }[], number]>(
        `DELETE FROM candidate WHERE id IN (
           SELECT id FROM candidate
           WHERE task = $1 AND received_at < $2 AND (state IN ('OPEN', 'SKIPPED') OR served_by IS NOT NULL)
             AND (leased_until IS NULL OR leased_until < now())
           LIMIT $3 FOR UPDATE SKIP LOCKED)
         RETURNING id`,
        [task, before, batch],
      );
      return this.reopened(gone, tx);
    });
  }

  /** What the answers to them closed is open again. Returns how many are gone. */
  async deleteGroup(task: string, splitGroup: string, tx: Tx): Promise<number> {
    const [gone] = await tx.query<[{ id: string }[], number]>(
      `DELETE FROM candidate WHERE task = $1 AND split_group = $2 RETURNING id`,
      [task, splitGroup],
    );
    return this.reopened(gone, tx);
  }

  /** Afterwards: an answer that was being given when they went was waited for. */
  private async reopened(gone: { id: string }[], tx: Tx): Promise<number> {
    await this.reopenServed(
      gone.map(({ id }) => id),
      tx,
    );
    return gone.length;
  }
}
