/** What the review queue asks next: questions to be checked again, of a strategy, of the audit slice, mixed. */
import { Inject, Injectable } from '@nestjs/common';
import { badInput } from '../common/errors.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import {
  positionOf,
  QuestionsRepository,
  type QuestionFilter,
  type QuestionView,
} from '../storage/questions.repository.js';
import { DiverseQuestions, type Place, type Placed } from './diverse-questions.js';
import { DEFAULT_STRATEGY, orderOf, WITHOUT_MODEL, type QueryStrategyName } from './query-strategies.js';
import { interleave, readCursor, type Chosen, type ChosenPosition, type Cursor, type Edge } from './question-pages.js';

export interface QueueRequest {
  first?: number | null;
  after?: string | null;
  /** Null: DEFAULT_STRATEGY, or WITHOUT_MODEL. */
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
    const listed = undecided ? await this.diverse.listIfAny(task, view, first + 1) : null;
    const strategy = begun?.strategy ?? request.strategy ?? (listed ? DEFAULT_STRATEGY : WITHOUT_MODEL);
    const start: Cursor = begun ?? {
      strategy,
      asked: await this.candidates.countAsked(task, by),
      check: null,
      chosen: null,
      audit: null,
    };
    const [checks, chosen, audit] = await Promise.all([
      this.questions.checks(task, start.check, first + 1, view),
      checksAlone(filter) ? NOTHING : this.chosen(task, { strategy, listed }, start.chosen, first + 1, view),
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
    return this.questions.countChosen(task, view.filter, COUNTED);
  }

  private async chosen(
    task: string,
    { strategy, listed }: { strategy: QueryStrategyName; listed: Placed[] | null },
    after: ChosenPosition | null,
    limit: number,
    view: QuestionView,
  ): Promise<Chosen> {
    const order = orderOf(strategy);
    if (order) {
      const rows = await this.questions.chosen(task, order, after, limit, view);
      return { rows, position: (row) => positionOf(order, row) };
    }
    if (strategy === 'RANDOM_AUDIT') return NOTHING;
    const placed = listed ?? (await this.diverse.list(task, view, after && placeOf(after), limit));
    const places = new Map(placed.map(({ place }) => [place.id, place]));
    return {
      rows: placed.map(({ row }) => row),
      position: ({ id }) => {
        const { index, order: digest, behind } = places.get(id)!;
        return { values: [index], id, compared: { order: digest, behind } };
      },
    };
  }

  async counted(rows: CandidateRow[]): Promise<Question[]> {
    const counts = await this.questions.countDuplicates(rows.map(({ id }) => id));
    return rows.map((row) => Object.assign(row, { duplicates: counts.get(row.id) ?? 0 }));
  }
}

function placeOf({ values: [index], id, compared }: ChosenPosition): Place {
  return { id, index: index!, ...compared! };
}

/** What questions are of where no strategy is named. */
const BY_DEFAULT: QueryStrategyName[] = [DEFAULT_STRATEGY, WITHOUT_MODEL];
const NOTHING: Chosen = { rows: [], position: () => ({ values: [], id: '' }) };

/** What a strategy chooses, and the audit slice, is asked for the first time: it has no priority. */
function checksAlone({ minPriority }: QuestionFilter): boolean {
  return (minPriority ?? 0) > 0;
}

function checkedFilter(filter: QuestionFilter): QuestionFilter {
  if (filter.label?.includes('\0')) throw badInput('filter.label', 'holds a character that cannot be stored');
  return filter;
}
