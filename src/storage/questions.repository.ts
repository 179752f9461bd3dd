import { Inject, Injectable } from '@nestjs/common';
import { DataSource, type SelectQueryBuilder } from 'typeorm';
import { CandidateRow, PREDICTED_LABEL_LENGTH } from './entities/candidate.js';

/** A column that questions are ordered by. */
export interface QuestionOrder {
  column: 'confidence' | 'margin' | 'entropy' | 'voteEntropy' | 'jensenShannon' | 'reservoirRank';
  direction: 'ASC' | 'DESC';
}

/** Where strategy questions begin: after the row with these values, in the order's columns. */
export interface QuestionPosition {
  values: number[];
  id: string;
}

/** Which of the questions that a strategy may choose from; absent and null: all. */
export interface QuestionFilter {
  /** Whether any member dissents. */
  contested?: boolean | null;
  /** What it is predicted to be. */
  label?: string | null;
  maxConfidence?: number | null;
  minVoteEntropy?: number | null;
  minJensenShannon?: number | null;
  /** Over 0: only questions that are asked again, with that priority or more; the others have none. */
  minPriority?: number | null;
}

/** Who asks, and for which questions: those that others hold are left out. */
export interface QuestionView {
  by: string;
  filter: QuestionFilter;
}

/** Where a page of questions with a reason begins. */
export interface CheckPosition {
  priority: number;
  id: string;
}

/** `c` and the row of the alias ask the same: same text, up to case and spaces, same pair, same choices, same fields. */
const same = (other: string): string => `${other}.task = c.task AND ${other}.split_group = c.split_group
  AND ${other}.text_pair IS NOT DISTINCT FROM c.text_pair AND ${other}.choices IS NOT DISTINCT FROM c.choices
  AND ${other}.fields IS NOT DISTINCT FROM c.fields`;

export const NOT_ANSWERED = `NOT EXISTS (SELECT 1 FROM example e WHERE ${same('e')})`;

const GLANCE = [
  ...(['id', 'itemKey', 'text', 'textPair', 'choices', 'fields', 'predictedLabel'] as const),
  ...(['confidence', 'margin', 'entropy', 'voteEntropy', 'jensenShannon', 'reservoirRank'] as const),
];

const NOT_HELD = '(c.leased_until IS NULL OR c.leased_until < now() OR c.leased_by = :by)';

/** A near-duplicate that the answer to `c` closes. */
const SERVED = `d.state = 'OPEN' AND d.split = 'train' AND NOT d.audit AND d.reason IS NULL`;

const FILTERS: [keyof QuestionFilter, string][] = [
  ['label', `c.predicted_label = left(:label, ${PREDICTED_LABEL_LENGTH})`],
  ['maxConfidence', 'c.confidence <= :maxConfidence'],
  ['minVoteEntropy', 'c.vote_entropy >= :minVoteEntropy'],
  ['minJensenShannon', 'c.jensen_shannon >= :minJensenShannon'],
];

/** Of a question, what tells how uncertain it is and how unlike others. */
export type QuestionGlance = Pick<CandidateRow, (typeof GLANCE)[number]>;

/** Of a row that was read in that order. */
export function positionOf(
  order: QuestionOrder[],
  row: Pick<CandidateRow, 'id' | QuestionOrder['column']>,
): QuestionPosition {
  return { values: order.map(({ column }) => row[column]!), id: row.id };
}

/** What the review queue asks; see learning/query-strategies.ts for who decides the order. */
@Injectable()
export class QuestionsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /**
   * Questions a strategy may choose from: open rows of train groups, outside the audit slice (an audit row answered
   * because of its score would no longer be a random one), one row per near-duplicate, none whose text is labelled.
   */
  chosen(
    task: string,
    order: QuestionOrder[],
    after: QuestionPosition | null,
    limit: number,
    view: QuestionView,
  ): Promise<CandidateRow[]> {
    return this.inOrder(task, order, after, limit, view).getMany();
  }

  /** The same questions by what tells them apart: whole rows, with what every member said, are ten times as much to read. */
  glances(
    task: string,
    order: QuestionOrder[],
    after: QuestionPosition | null,
    limit: number,
    view: QuestionView,
  ): Promise<QuestionGlance[]> {
    const query = this.inOrder(task, order, after, limit, view).select([]);
    for (const column of GLANCE) query.addSelect(`c.${column}`, column);
    return query.getRawMany<QuestionGlance>();
  }

  /** Of the item keys, those that a strategy may choose, in the order given. */
  async mayBeAsked(task: string, keys: string[]): Promise<string[]> {
    const query = this.chosenRows(task, {}).andWhere('c.item_key = ANY(:keys)', { keys });
    const found = new Set((await query.getMany()).map(({ itemKey }) => itemKey));
    return keys.filter((key) => found.has(key));
  }

  /** Of the ids, those that a strategy may choose, in the order given. */
  async stillChosen(task: string, ids: string[], { by, filter }: QuestionView): Promise<CandidateRow[]> {
    const query = this.chosenRows(task, filter).andWhere('c.id = ANY(:ids)', { ids }).andWhere(NOT_HELD, { by });
    const byId = new Map((await query.getMany()).map((row) => [row.id, row]));
    return ids.flatMap((id) => byId.get(id) ?? []);
  }

  /** Questions of the audit slice, in an order that has nothing to do with their score. */
  audit(task: string, afterItemKey: string | null, limit: number, by: string): Promise<CandidateRow[]> {
    const query = this.auditRows(task).andWhere(NOT_HELD, { by });
    if (afterItemKey !== null) query.andWhere('c.item_key > :afterItemKey', { afterItemKey });
    return query.orderBy('c.itemKey').limit(limit).getMany();
  }

  /** Questions that are asked again, for a reason: the highest priority first, none that `by` has answered. */
  checks(
    task: string,
    after: CheckPosition | null,
    limit: number,
    { by, filter }: QuestionView,
  ): Promise<CandidateRow[]> {
    const query = this.checkRows(task, by, filter).andWhere(NOT_HELD);
    if (after) query.andWhere('(-c.priority, c.id) > (:negated, :id)', { negated: -after.priority, id: after.id });
    return query.orderBy('c.priority', 'DESC').addOrderBy('c.id').limit(limit).getMany();
  }

  /** At most so many, as those that follow. */
  countChosen(task: string, filter: QuestionFilter, most: number): Promise<number> {
    return this.countOf(this.chosenRows(task, filter), most);
  }

  countAudit(task: string, most: number): Promise<number> {
    return this.countOf(this.auditRows(task), most);
  }

  countChecks(task: string, { by, filter }: QuestionView, most: number): Promise<number> {
    return this.countOf(this.checkRows(task, by, filter), most);
  }

  private async countOf(rows: SelectQueryBuilder<CandidateRow>, most: number): Promise<number> {
    const [sql, parameters] = rows.select('1').limit(most).getQueryAndParameters();
    const [found] = await this.dataSource.manager.query<{ count: number }[]>(
      `SELECT count(*)::int AS count FROM (${sql}) AS found`,
      parameters,
    );
    return found!.count;
  }

  /** By id: how many near-duplicates the answer to a question closes; those that have none are not there. */
  async countDuplicates(ids: string[]): Promise<Map<string, number>> {
    const rows = await this.dataSource.manager.query<{ id: string; count: number }[]>(
      `SELECT c.id, count(*)::int AS count FROM candidate c
       JOIN candidate d ON d.task = c.task AND d.near_group = c.near_group AND d.id <> c.id AND ${SERVED}
       WHERE c.id = ANY($1) GROUP BY c.id`,
      [ids],
    );
    return new Map(rows.map(({ id, count }) => [id, count]));
  }

  /**
   * Where a near-duplicate is in the audit slice, that one is asked: were it held out, the answer here would bring its
   * text into train.
   */
  private chosenRows(task: string, filter: QuestionFilter): SelectQueryBuilder<CandidateRow> {
    const query = this.open(task)
      .andWhere(`c.split = 'train' AND NOT c.audit`)
      .andWhere(
        `NOT EXISTS (SELECT 1 FROM candidate d WHERE ${same('d')} AND d.id <> c.id
          AND (d.state <> 'OPEN' OR d.reason IS NOT NULL OR d.audit OR d.item_key < c.item_key))`,
      )
      .andWhere(
        `NOT EXISTS (SELECT 1 FROM candidate d WHERE d.task = c.task AND d.near_group = c.near_group AND d.id <> c.id
          AND (d.state <> 'OPEN' OR d.reason IS NOT NULL OR d.audit
            OR (d.split = 'train' AND d.item_key < c.item_key)))`,
      );
    for (const [name, condition] of FILTERS) {
      if (filter[name] !== undefined && filter[name] !== null) query.andWhere(condition, { [name]: filter[name] });
    }
    if (typeof filter.contested === 'boolean') query.andWhere(`c.dissenting ${filter.contested ? '>' : '='} 0`);
    return query;
  }

  /** Ordered by the reservoir's rank there are only rows of the reservoir. */
  private inOrder(
    task: string,
    order: QuestionOrder[],
    after: QuestionPosition | null,
    limit: number,
    { by, filter }: QuestionView,
  ): SelectQueryBuilder<CandidateRow> {
    const query = this.chosenRows(task, filter).andWhere(NOT_HELD, { by });
    // Descending columns compare negated, so that one row comparison serves every order.
    const sql = order.map(({ column, direction }) => {
      const name = `c.${column.replace(/[A-Z]/gu, (letter) => `_${letter.toLowerCase()}`)}`;
      return direction === 'ASC' ? name : `-${name}`;
    });
    if (order.some(({ column }) => column === 'reservoirRank')) query.andWhere('c.reservoir_rank IS NOT NULL');
    if (after) {
      const values = order.map(({ direction }, i) => (direction === 'ASC' ? after.values[i]! : -after.values[i]!));
      query.andWhere(`(${[...sql, 'c.id'].join(', ')}) > (${values.map((_, i) => `:v${i}`).join(', ')}, :id)`, {
        ...Object.fromEntries(values.map((value, i) => [`v${i}`, value])),
        id: after.id,
      });
    }
    for (const { column, direction } of order) query.addOrderBy(`c.${column}`, direction);
    return query.addOrderBy('c.id').limit(limit);
  }

  private auditRows(task: string): SelectQueryBuilder<CandidateRow> {
    return this.open(task)
      .andWhere('c.audit')
      .andWhere(
        `NOT EXISTS (SELECT 1 FROM candidate d WHERE ${same('d')} AND d.id <> c.id
          AND (d.state <> 'OPEN' OR d.reason IS NOT NULL OR (d.audit AND d.item_key < c.item_key)))`,
      );
  }

  private checkRows(task: string, by: string, { minPriority }: QuestionFilter): SelectQueryBuilder<CandidateRow> {
    return this.dataSource.manager
      .createQueryBuilder(CandidateRow, 'c')
      .where('c.task = :task AND c.reason IS NOT NULL AND c.priority >= :minPriority', {
        task,
        minPriority: minPriority ?? 0,
      })
      .andWhere(
        `(c.reason = 'LABEL_ISSUE' OR NOT EXISTS (SELECT 1 FROM answer a
          WHERE a.candidate = c.id AND a.answered_by = :by AND a.undone_at IS NULL))`,
        { by },
      );
  }

  private open(task: string): SelectQueryBuilder<CandidateRow> {
    return this.dataSource.manager
      .createQueryBuilder(CandidateRow, 'c')
      .where(`c.task = :task AND c.state = 'OPEN' AND c.reason IS NULL`, { task })
      .andWhere(NOT_ANSWERED);
  }
}
