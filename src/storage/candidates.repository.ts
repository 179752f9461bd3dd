import { Inject, Injectable } from '@nestjs/common';
import { DataSource, In } from 'typeorm';
import { CandidateRow } from './entities/candidate.js';
import type { KeyedItem, SplitValue } from './entities/item-columns.js';
import type { Tx } from './transactions.js';

/** What is stored of a prediction, beside the whole of it. */
export interface CandidateScore {
  itemKey: string;
  prediction: object;
  modelVersion: number;
  confidence: number;
  margin: number;
  entropy: number;
  voteEntropy: number;
  jensenShannon: number;
  dissenting: number;
  route: 'ACCEPT' | 'REVIEW';
}

export interface NewCandidate extends KeyedItem, CandidateScore {
  split: SplitValue;
  audit: boolean;
  reservoirRank: number | null;
}

export interface PoolCounts {
  total: number;
  contested: number;
  awaitingReview: number;
  labelled: number;
  outdated: number;
}

const SCORE_COLUMNS = `"itemKey" text, prediction jsonb, "modelVersion" integer, confidence double precision,
  margin double precision, entropy double precision, "voteEntropy" double precision, "jensenShannon" double precision,
  dissenting integer, route text`;

@Injectable()
export class CandidatesRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  find(id: string, tx?: Tx): Promise<CandidateRow | null> {
    return (tx ?? this.dataSource.manager).findOneBy(CandidateRow, { id });
  }

  /** Holds the row until the transaction ends. */
  lock(id: string, tx: Tx): Promise<CandidateRow | null> {
    return tx.findOne(CandidateRow, { where: { id }, lock: { mode: 'pessimistic_write' } });
  }

  /** One admission to a task's pool at a time, until the transaction ends: its bounds are counted once. */
  async lockPool(task: string, tx: Tx): Promise<void> {
    await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended('pool:' || $1, 0))`, [task]);
  }

  /** Idempotent by item key; a known open row takes the prediction of a version that is no older. */
  async upsert(task: string, rows: NewCandidate[], tx: Tx): Promise<void> {
    await tx.query(
      `INSERT INTO candidate (task, item_key, split_group, split, text, text_pair, choices, fields, prediction,
         model_version, confidence, margin, entropy, vote_entropy, jensen_shannon, dissenting, route, audit,
         reservoir_rank, served_prediction)
       SELECT $1, r."itemKey", r."splitGroup", r.split, r.text, r."textPair", nullif(r.choices, 'null'::jsonb),
         nullif(r.fields, 'null'::jsonb), r.prediction, r."modelVersion", r.confidence, r.margin, r.entropy,
         r."voteEntropy", r."jensenShannon", r.dissenting, r.route, r.audit, r."reservoirRank",
         CASE WHEN r.audit THEN r.prediction END
       FROM jsonb_to_recordset($2::jsonb) AS r(${SCORE_COLUMNS}, "splitGroup" text, split text, text text,
         "textPair" text, choices jsonb, fields jsonb, audit boolean, "reservoirRank" double precision)
       ORDER BY r."itemKey"
       ON CONFLICT (task, item_key) DO UPDATE SET prediction = excluded.prediction,
         model_version = excluded.model_version, confidence = excluded.confidence, margin = excluded.margin,
         entropy = excluded.entropy, vote_entropy = excluded.vote_entropy,
         jensen_shannon = excluded.jensen_shannon, dissenting = excluded.dissenting, route = excluded.route, reservoir_rank = excluded.reservoir_rank,
         served_prediction = excluded.served_prediction
       WHERE candidate.state = 'OPEN' AND candidate.model_version <= excluded.model_version`,
      [task, JSON.stringify(rows)],
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

  /** At most so many: confident, unanimous, old rows go; the audit slice, the reservoir and answered rows stay. */
  async evict(task: string, surplus: number, tx: Tx): Promise<void> {
    await tx.query(
      `DELETE FROM candidate WHERE id IN (
         SELECT id FROM candidate WHERE task = $1 AND state = 'OPEN' AND NOT audit AND reservoir_rank IS NULL
         ORDER BY (route = 'REVIEW'), (dissenting > 0), confidence DESC, received_at, id
         LIMIT $2)`,
      [task, surplus],
    );
  }

  /** Open rows whose prediction is of an older version than the active one; the likeliest questions come first. */
  findStale(task: string, activeVersion: number, limit: number): Promise<CandidateRow[]> {
    return this.dataSource.manager
      .createQueryBuilder(CandidateRow, 'candidate')
      .where(`candidate.task = :task AND candidate.state = 'OPEN' AND candidate.modelVersion < :activeVersion`)
      .setParameters({ task, activeVersion })
      .orderBy({ 'candidate.margin': 'ASC', 'candidate.confidence': 'ASC', 'candidate.id': 'ASC' })
      .take(limit)
      .getMany();
  }

  async updateScores(task: string, scores: CandidateScore[]): Promise<void> {
    await this.dataSource.manager.query(
      `UPDATE candidate AS c SET prediction = r.prediction, model_version = r."modelVersion",
         confidence = r.confidence, margin = r.margin, entropy = r.entropy, vote_entropy = r."voteEntropy",
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
         (count(*) FILTER (WHERE state = 'OPEN' AND model_version < $2))::int AS outdated
       FROM candidate WHERE task = $1`,
      [task, activeVersion],
    );
    return row!;
  }

  /** How many questions were answered or skipped. */
  async countAnswered(task: string): Promise<number> {
    return this.dataSource.manager.countBy(CandidateRow, { task, state: In(['LABELLED', 'SKIPPED']) });
  }

  async setLabelled(id: string, labels: string[], answeredBy: string, tx: Tx): Promise<void> {
    await tx.update(
      CandidateRow,
      { id },
      { state: 'LABELLED', labels, answeredBy, answeredAt: new Date(), skipReason: null },
    );
  }

  async setSkipped(id: string, reason: string | null, answeredBy: string, tx: Tx): Promise<void> {
    await tx.update(CandidateRow, { id }, { state: 'SKIPPED', skipReason: reason, answeredBy, answeredAt: new Date() });
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
      await tx.query(
        `UPDATE candidate SET labels = array_replace(labels, $2, $3) WHERE task = $1 AND $2 = ANY(labels)`,
        [task, from, to],
      );
    }
  }

  async deleteGroup(task: string, splitGroup: string, tx: Tx): Promise<number> {
    return (await tx.delete(CandidateRow, { task, splitGroup })).affected ?? 0;
  }
}
