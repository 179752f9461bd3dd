/**
 * The review queue: which question comes next, and what an answer becomes.
 * One question in five comes from the audit slice, counted over all that were answered, so that asking for one at a
 * time gives the same mixture as asking for twenty. An answer that a strategy chose is train; an audit answer goes to
 * its group's split. A strategy never asks about a dev or test group (storage/questions.repository.ts).
 */
import { Inject, Injectable } from '@nestjs/common';
import { badInput, FewloopError } from '../common/errors.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { QuestionsRepository, type QuestionPosition } from '../storage/questions.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import type { TaskDefinition } from '../task/types.js';
import { DiverseQuestions } from './diverse-questions.js';
import { LearningEvents } from './events.js';
import { checkedLabels } from './intake.js';
import { DEFAULT_STRATEGY, orderOf, type QueryStrategyName } from './query-strategies.js';
import { UUID } from './runs.js';
import { TaskService } from './task-service.js';

export interface QueueRequest {
  first?: number | null;
  after?: string | null;
  strategy?: QueryStrategyName | null;
}

export interface QueuePage {
  edges: { cursor: string; node: CandidateRow }[];
  pageInfo: { hasNextPage: boolean; endCursor: string | null };
  totalCount: number;
}

/** Where a page begins: after what was shown of both kinds. */
interface Cursor {
  strategy: QueryStrategyName;
  /** Questions so far, answered ones and shown ones: decides whose turn it is. */
  asked: number;
  chosen: QuestionPosition | null;
  audit: string | null;
}

/** Questions that a strategy chose, in order, and where a page goes on behind each. */
interface Chosen {
  rows: CandidateRow[];
  /** Over all pages. */
  total: number;
  position(row: CandidateRow): QuestionPosition;
}

const AUDIT_EVERY = 5;
const MAX_PAGE = 200;

@Injectable()
export class ReviewService {
  constructor(
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(TasksRepository) private readonly taskRows: TasksRepository,
    @Inject(QuestionsRepository) private readonly questions: QuestionsRepository,
    @Inject(DiverseQuestions) private readonly diverse: DiverseQuestions,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(LearningEvents) private readonly events: LearningEvents,
  ) {}

  /** Throws TASK_NOT_FOUND; BAD_INPUT on `first`, `after`, `strategy`. */
  async queue(task: string, request: QueueRequest): Promise<QueuePage> {
    await this.tasks.get(task);
    const strategy = request.strategy ?? DEFAULT_STRATEGY;
    const first = request.first ?? 20;
    if (!Number.isInteger(first) || first < 0 || first > MAX_PAGE) throw badInput('first', `must be 0 to ${MAX_PAGE}`);
    const start: Cursor = request.after
      ? readCursor(request.after, strategy)
      : { strategy, asked: await this.candidates.countAnswered(task), chosen: null, audit: null };
    const [chosen, audit, countAudit] = await Promise.all([
      this.chosen(task, strategy, start.chosen, first + 1),
      this.questions.audit(task, start.audit, first + 1),
      this.questions.countAudit(task),
    ]);
    const edges = interleave(start, chosen, audit, first);
    const endCursor = edges.at(-1)?.cursor ?? null;
    const hasNextPage = chosen.rows.length + audit.length > edges.length;
    return { edges, pageInfo: { hasNextPage, endCursor }, totalCount: chosen.total + countAudit };
  }

  /** Throws CANDIDATE_NOT_FOUND, BAD_INPUT on `labels`, CONFLICT where it was answered otherwise or may not be asked. */
  async label(id: string, labels: string[], by: string): Promise<CandidateRow> {
    return this.answer(id, async (candidate, tx) => {
      const definition = (await this.taskRows.find(candidate.task, tx))!.definition as TaskDefinition;
      const checked = checkedLabels(definition, candidate, labels);
      if (candidate.state === 'LABELLED' && checked.join('\n') === candidate.labels?.join('\n')) return;
      requireOpen(candidate);
      await this.becomeExample(candidate, checked, by, tx);
      await this.candidates.setLabelled(id, checked, by, tx);
    }).then((row) => {
      this.events.examplesChanged(row.task);
      return row;
    });
  }

  /** Throws CANDIDATE_NOT_FOUND, CONFLICT where it was answered. */
  async skip(id: string, reason: string | null, by: string): Promise<CandidateRow> {
    if (reason !== null && (!reason.isWellFormed() || reason.includes('\0'))) {
      throw badInput('reason', 'holds a character that cannot be stored');
    }
    return this.answer(id, async (candidate, tx) => {
      if (candidate.state === 'SKIPPED') return;
      requireOpen(candidate);
      await this.candidates.setSkipped(id, reason, by, tx);
    });
  }

  private async chosen(
    task: string,
    strategy: QueryStrategyName,
    after: QuestionPosition | null,
    limit: number,
  ): Promise<Chosen> {
    const order = orderOf(strategy);
    if (order) {
      const [rows, total] = await Promise.all([
        this.questions.chosen(task, order, after, limit),
        this.questions.countChosen(task),
      ]);
      return { rows, total, position: (row) => ({ values: order.map(({ column }) => row[column]), id: row.id }) };
    }
    if (strategy === 'RANDOM_AUDIT') return { rows: [], total: 0, position: () => ({ values: [], id: '' }) };
    const listed = await this.diverse.list(task);
    // Behind the row where the page before ended, or, once that is answered, as far on as it stood.
    const known = listed.findIndex(({ id }) => id === after?.id);
    const from = after === null ? 0 : known === -1 ? after.values[0]! : known + 1;
    return {
      rows: listed.slice(from, from + limit),
      total: listed.length,
      position: (row) => ({ values: [listed.indexOf(row)], id: row.id }),
    };
  }

  private answer(id: string, act: (candidate: CandidateRow, tx: Tx) => Promise<void>): Promise<CandidateRow> {
    return this.transactions.run(async (tx) => {
      const candidate = UUID.test(id) ? await this.candidates.lock(id, tx) : null;
      if (!candidate) throw new FewloopError('CANDIDATE_NOT_FOUND', `there is no candidate ${id.slice(0, 100)}`);
      await act(candidate, tx);
      return (await this.candidates.find(id, tx))!;
    });
  }

  private async becomeExample(candidate: CandidateRow, labels: string[], by: string, tx: Tx): Promise<void> {
    const { task, itemKey, splitGroup, text, textPair, choices, fields, audit } = candidate;
    await this.examples.lockTask(task, tx);
    const [known] = await this.examples.findByKeys(task, [itemKey], tx);
    if (known) {
      // Imported since it was admitted; the newer word counts.
      await this.examples.setLabels(known.id, labels, known.origin, by, tx);
      return;
    }
    const split = (await this.examples.splitsOfGroups(task, [splitGroup], tx)).get(splitGroup) ?? candidate.split;
    if (!audit && split !== 'train') {
      throw new FewloopError('CONFLICT', `this text is held out (${split}) and was not drawn for the audit`);
    }
    const item = { itemKey, splitGroup, text, textPair, choices, fields };
    await this.examples.insert(
      [{ ...item, task, labels, split, origin: audit ? 'AUDIT' : 'ANSWER', answeredBy: by }],
      tx,
    );
  }
}

/** Every fifth from the audit slice; where one kind has run out, the other goes on. */
function interleave(
  start: Cursor,
  { rows: chosen, position }: Chosen,
  audit: CandidateRow[],
  first: number,
): QueuePage['edges'] {
  const edges: QueuePage['edges'] = [];
  let cursor = start;
  let [c, a] = [0, 0];
  while (edges.length < first && (c < chosen.length || a < audit.length)) {
    const auditsTurn = cursor.asked % AUDIT_EVERY === AUDIT_EVERY - 1;
    const takeAudit = a < audit.length && (auditsTurn || c === chosen.length);
    const node = takeAudit ? audit[a++]! : chosen[c++]!;
    const moved = takeAudit ? { audit: node.itemKey } : { chosen: position(node) };
    cursor = { ...cursor, ...moved, asked: cursor.asked + 1 };
    edges.push({ cursor: Buffer.from(JSON.stringify(cursor)).toString('base64url'), node });
  }
  return edges;
}

function readCursor(text: string, strategy: QueryStrategyName): Cursor {
  const bad = (why: string): FewloopError => badInput('after', why);
  let cursor: Cursor;
  try {
    cursor = JSON.parse(Buffer.from(text, 'base64url').toString()) as Cursor;
  } catch {
    throw bad('is not a cursor of this queue');
  }
  if (cursor?.strategy !== strategy) throw bad('is a cursor of another strategy');
  const { asked, chosen, audit } = cursor;
  const columns = orderOf(strategy)?.length ?? 1;
  const positionHolds =
    chosen === null ||
    (typeof chosen === 'object' &&
      UUID.test(chosen.id) &&
      Array.isArray(chosen.values) &&
      chosen.values.length === columns &&
      chosen.values.every(Number.isFinite));
  const auditHolds = audit === null || (typeof audit === 'string' && /^[0-9a-f]{64}$/u.test(audit));
  if (!Number.isInteger(asked) || !positionHolds || !auditHolds) throw bad('is not a cursor of this queue');
  return cursor;
}

function requireOpen({ state }: CandidateRow): void {
  if (state === 'OPEN') return;
  throw new FewloopError('CONFLICT', state === 'LABELLED' ? 'it has another label already' : 'it was skipped');
}
