/** What the review queue asks next: questions to be checked again, of a strategy, of the audit slice, mixed. */
import { Inject, Injectable } from '@nestjs/common';
import { badInput } from '../common/errors.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import {
  QuestionsRepository,
  type QuestionFilter,
  type QuestionPosition,
  type QuestionView,
} from '../storage/questions.repository.js';
import { DiverseQuestions } from './diverse-questions.js';
import { DEFAULT_STRATEGY, orderOf, type QueryStrategyName } from './query-strategies.js';
import { interleave, readCursor, type Chosen, type Cursor, type Edge } from './question-pages.js';

export interface QueueRequest {
  first?: number | null;
  after?: string | null;
  /** Null: DEFAULT_STRATEGY; DIVERSE as long as the task has no label to train on, where a model's doubts say little. */
  strategy?: QueryStrategyName | null;
  /** Of what a strategy chooses; the audit slice stays whole, so that it stays a random one. `minPriority`: of all. */
  filter?: QuestionFilter | null;
}

export interface Question extends CandidateRow {
  /** Open near-duplicates that the answer closes. */
  duplicates: number;
}

export interface QueuePage {
  edges: { cursor: string; node: Question }[];
  pageInfo: { hasNextPage: boolean; endCursor: string | null };
}

interface Page {
  edges: Edge[];
  pageInfo: QueuePage['pageInfo'];
  /** By which it was chosen. */
  strategy: QueryStrategyName;
}

const MAX_PAGE = 200;
/** Counting goes no further: in a large pool it would take longer than the page. */
export const COUNTED = 1000;

@Injectable()
export class QuestionQueue {
  constructor(
    @Inject(QuestionsRepository) private readonly questions: QuestionsRepository,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(DiverseQuestions) private readonly diverse: DiverseQuestions,
  ) {}

  /**
   * For `by`: what others hold is left out, and what they answered themselves and another is to answer. Throws BAD_INPUT
   * on `first`, `after`, `filter`.
   */
  async page(task: string, request: QueueRequest, by: string): Promise<Page> {
    const filter = checkedFilter(request.filter ?? {});
    const first = request.first ?? 20;
    if (!Number.isInteger(first) || first < 0 || first > MAX_PAGE) throw badInput('first', `must be 0 to ${MAX_PAGE}`);
    const view = { by, filter };
    const begun = request.after ? readCursor(request.after, request.strategy ? [request.strategy] : BY_DEFAULT) : null;
    const undecided = !begun && !request.strategy && !checksAlone(filter);
    const cold = undecided ? await this.diverse.coldStart(task, view, first + 1) : null;
    const strategy = begun?.strategy ?? request.strategy ?? (cold ? 'DIVERSE' : DEFAULT_STRATEGY);
    const start: Cursor = begun ?? {
      strategy,
      asked: await this.candidates.countAsked(task, by),
      check: null,
      chosen: null,
      audit: null,
    };
    const [checks, chosen, audit] = await Promise.all([
      this.questions.checks(task, start.check, first + 1, view),
      checksAlone(filter) ? NOTHING : this.chosen(task, { strategy, cold }, start.chosen, first + 1, view),
      checksAlone(filter) ? [] : this.questions.audit(task, start.audit, first + 1, by),
    ]);
    const edges = interleave(start, checks, chosen, audit, first);
    const endCursor = edges.at(-1)?.cursor ?? null;
    const hasNextPage = checks.length + chosen.rows.length + audit.length > edges.length;
    return { edges, pageInfo: { hasNextPage, endCursor }, strategy };
  }

  /**
   * How many questions there are for `by`, those that others hold among them; COUNTED where there are as many or more. A
   * task without labels begins with a sample of them, and has the others as well.
   */
  async count(task: string, request: Pick<QueueRequest, 'strategy' | 'filter'>, by: string): Promise<number> {
    const filter = checkedFilter(request.filter ?? {});
    const strategy = request.strategy ?? DEFAULT_STRATEGY;
    const view = { by, filter };
    const counts = await Promise.all([
      this.questions.countChecks(task, view, COUNTED),
      checksAlone(filter) ? 0 : this.questions.countAudit(task, COUNTED),
      checksAlone(filter) ? 0 : this.countChosen(task, strategy, view),
    ]);
    return Math.min(
      COUNTED,
      counts.reduce((sum, count) => sum + count, 0),
    );
  }

  private async countChosen(task: string, strategy: QueryStrategyName, view: QuestionView): Promise<number> {
    if (strategy === 'RANDOM_AUDIT') return 0;
    if (strategy === 'DIVERSE') return this.diverse.count(task, view);
    return this.questions.countChosen(task, view.filter, COUNTED);
  }

  private async chosen(
    task: string,
    { strategy, cold }: { strategy: QueryStrategyName; cold: string[] | null },
    after: QuestionPosition | null,
    limit: number,
    view: QuestionView,
  ): Promise<Chosen> {
    const order = orderOf(strategy);
    if (order) {
      const rows = await this.questions.chosen(task, order, after, limit, view);
      return { rows, position: (row) => ({ values: order.map(({ column }) => row[column]), id: row.id }) };
    }
    if (strategy === 'RANDOM_AUDIT') return NOTHING;
    const most = (after === null ? 0 : after.values[0]! + 1) + limit;
    const listed = cold ?? (await this.diverse.list(task, view, most));
    // Behind the row where the page before ended, or, once that is answered, as far on as it stood.
    const known = after === null ? -1 : listed.indexOf(after.id);
    const from = after === null ? 0 : known === -1 ? after.values[0]! : known + 1;
    return {
      rows: await this.questions.rows(listed.slice(from, from + limit)),
      position: ({ id }) => ({ values: [listed.indexOf(id)], id }),
    };
  }

  async counted(rows: CandidateRow[]): Promise<Question[]> {
    const counts = await this.questions.countDuplicates(rows.map(({ id }) => id));
    return rows.map((row) => Object.assign(row, { duplicates: counts.get(row.id) ?? 0 }));
  }
}

/** What questions are of where no strategy is named. */
const BY_DEFAULT: QueryStrategyName[] = [DEFAULT_STRATEGY, 'DIVERSE'];
const NOTHING: Chosen = { rows: [], position: () => ({ values: [], id: '' }) };

/** What a strategy chooses, and the audit slice, is asked for the first time: it has no priority. */
function checksAlone({ minPriority }: QuestionFilter): boolean {
  return (minPriority ?? 0) > 0;
}

function checkedFilter(filter: QuestionFilter): QuestionFilter {
  if (filter.label?.includes('\0')) throw badInput('filter.label', 'holds a character that cannot be stored');
  return filter;
}
