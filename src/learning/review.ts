/**
 * The review queue: which question comes next, who is answering it, and what an answer becomes.
 * What is to be checked again comes first. One question in five comes from the audit slice, counted over all that were
 * answered, so that asking for one at a time gives the same mixture as asking for twenty. An answer that a strategy
 * chose is train; an audit answer goes to its group's split. A strategy never asks about a dev or test group
 * (storage/questions.repository.ts). Every answer is kept, whoever gave it and whatever became of it.
 *
 *   asked ──▶ answered ──▶ an example; its near-duplicates are closed with it
 *                └── drawn for agreement: another labeler is asked ──▶ the same: done
 *                                                                  └── otherwise: no example until a third decides
 */
import { Inject, Injectable } from '@nestjs/common';
import { badInput, checkCharacters, FewloopError } from '../common/errors.js';
import { AnswersRepository } from '../storage/answers.repository.js';
import { CandidatesRepository, type CandidateAnswer } from '../storage/candidates.repository.js';
import type { BeforeAnswer } from '../storage/entities/answer.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import { fraction } from '../task/keys.js';
import type { TaskDefinition } from '../task/types.js';
import { AnswerExamples, sameLabels } from './answer-examples.js';
import { namedNow, presentName } from './data-set.js';
import { LearningEvents } from './events.js';
import { checkedLabels } from './intake.js';
import { QuestionQueue, type Question, type QueuePage, type QueueRequest } from './question-queue.js';
import { UUID } from './runs.js';
import { TaskService } from './task-service.js';

const LEASE_SECONDS = 300;
/** Others lease the same page at the same time: then what is left of it is looked at again. */
const LEASE_ROUNDS = 10;

@Injectable()
export class ReviewService {
  constructor(
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(TasksRepository) private readonly taskRows: TasksRepository,
    @Inject(QuestionQueue) private readonly questions: QuestionQueue,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(AnswersRepository) private readonly answers: AnswersRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(AnswerExamples) private readonly answerExamples: AnswerExamples,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(LearningEvents) private readonly events: LearningEvents,
  ) {}

  /**
   * `by`: who would answer; what others hold is left out, and what was answered by them and waits for another. Throws
   * TASK_NOT_FOUND; BAD_INPUT on `first`, `after`, `filter`.
   */
  async queue(task: string, request: QueueRequest, by = ''): Promise<QueuePage> {
    checkPredicted((await this.tasks.get(task)).definition as TaskDefinition, request);
    const { edges, ...page } = await this.questions.page(task, request, by);
    const nodes = await this.questions.counted(edges.map(({ node }) => node));
    return { ...page, edges: edges.map(({ cursor }, i) => ({ cursor, node: nodes[i]! })) };
  }

  /** How many questions `queue` has in all: see QuestionQueue.count. */
  count(task: string, request: QueueRequest, by = ''): Promise<number> {
    return this.questions.count(task, request, by);
  }

  /**
   * The first questions of the queue, which nobody else is asked for some minutes. Whoever leases again keeps what they
   * hold. Throws as `queue`.
   */
  async lease(task: string, request: Omit<QueueRequest, 'after'>, by: string): Promise<Question[]> {
    checkPredicted((await this.tasks.get(task)).definition as TaskDefinition, request);
    const held = new Map<string, CandidateRow>();
    const first = request.first ?? 20;
    for (let round = 0; ; round++) {
      // What was got before is held, and so on the page again.
      const { edges, strategy } = await this.questions.page(task, { ...request, first }, by);
      const rows = edges.map(({ node }) => node);
      const got = await this.transactions.run((tx) =>
        this.candidates.lease(
          rows.map(({ id }) => id),
          by,
          LEASE_SECONDS,
          strategy,
          tx,
        ),
      );
      for (const row of rows) if (got.has(row.id) && held.size < first) held.set(row.id, row);
      if (got.size === rows.length || held.size === first || round === LEASE_ROUNDS) {
        return this.questions.counted([...held.values()]);
      }
    }
  }

  /** What `by` holds may be asked of others again. Throws TASK_NOT_FOUND. */
  async release(task: string, by: string): Promise<void> {
    await this.tasks.get(task);
    await this.candidates.release(task, by);
  }

  /** Throws CANDIDATE_NOT_FOUND, BAD_INPUT on `labels`, CONFLICT where it was answered otherwise or may not be asked. */
  async label(id: string, labels: string[], by: string, strategy: string | null = null): Promise<Question> {
    const row = await this.answer(id, async (candidate, tx) => {
      const definition = (await this.taskRows.find(candidate.task, tx))!.definition as TaskDefinition;
      const checked = checkedLabels(definition, candidate, labels);
      if (await this.isRepeated(candidate, checked, by, tx)) return;
      const before = await this.before(candidate, tx);
      const asked = strategyOf(candidate, by, strategy);
      await this.record(candidate, { labels: checked, skipReason: null, before, strategy: asked }, by, tx);
      const answer = { state: 'LABELLED', labels: checked, skipReason: null, ...now(by), ...DONE } as const;
      if (candidate.reason === 'SECOND_ANSWER') return this.compare(candidate, checked, by, asked, tx);
      await this.answerExamples.put(candidate, checked, by, asked, tx);
      await this.candidates.serve(candidate, checked, by, tx);
      const again = candidate.reason === null && isDrawnTwice(definition, candidate);
      await this.candidates.setAnswer(id, again ? { ...answer, ...CHECKS.SECOND_ANSWER } : answer, tx);
    });
    this.events.examplesChanged(row.task);
    return row;
  }

  /**
   * A question that has an answer keeps it, and is not asked of `by` again. Throws CANDIDATE_NOT_FOUND, BAD_INPUT on
   * `reason`, CONFLICT where it was answered.
   */
  async skip(id: string, reason: string | null, by: string, strategy: string | null = null): Promise<Question> {
    if (reason !== null) checkCharacters('reason', reason);
    return this.answer(id, async (candidate, tx) => {
      if (candidate.state === 'SKIPPED') return;
      if (isFirst(candidate)) requireOpen(candidate);
      const before = await this.before(candidate, tx);
      const asked = strategyOf(candidate, by, strategy);
      await this.record(candidate, { labels: null, skipReason: reason, before, strategy: asked }, by, tx);
      let answer = onlyAnswer(candidate);
      if (isFirst(candidate)) answer = { ...answer, state: 'SKIPPED', skipReason: reason, ...now(by), ...DONE };
      if (candidate.reason === 'LABEL_ISSUE') answer = { ...answer, ...DONE };
      await this.candidates.setAnswer(id, answer, tx);
    });
  }

  /**
   * Takes the newest answer of `by` back, so that all is as it was before it; the answer stays in the history, marked.
   * Throws TASK_NOT_FOUND, CONFLICT where there is none, or somebody has answered after it.
   */
  async undo(task: string, by: string): Promise<Question> {
    await this.tasks.get(task);
    const id = await this.transactions.run(async (tx) => {
      await this.examples.lockTask(task, tx);
      const last = await this.answers.last(task, by, tx);
      if (!last) throw new FewloopError('CONFLICT', 'there is no answer of yours that could be taken back');
      const candidate = (await this.candidates.lock(last.candidate, tx))!;
      const standing = await this.answers.standing(candidate.id, tx);
      if (standing.at(-1)!.id !== last.id) {
        throw new FewloopError('CONFLICT', 'somebody has answered the same question since');
      }
      await this.answers.markUndone(last.id, tx);
      const definition = (await this.taskRows.find(task, tx))!.definition as TaskDefinition;
      const { answeredAt, labels, ...before } = last.before.candidate;
      const restored = {
        ...before,
        labels: labels && namedNow(definition, labels),
        answeredAt: answeredAt === null ? null : new Date(answeredAt),
      };
      await this.candidates.setAnswer(candidate.id, restored, tx);
      // Theirs to answer anew.
      await this.candidates.lease([candidate.id], by, LEASE_SECONDS, last.strategy, tx);
      if (before.state === 'OPEN' && isFirst(before)) await this.candidates.reopenServed([candidate.id], tx);
      if (last.labels) await this.answerExamples.restore(definition, candidate, last, tx);
      return candidate.id;
    });
    this.events.examplesChanged(task);
    return (await this.questions.counted([(await this.candidates.find(id))!]))[0]!;
  }

  /** One answer to a task's questions at a time: an answer closes other questions too. */
  private async answer(id: string, act: (candidate: CandidateRow, tx: Tx) => Promise<void>): Promise<Question> {
    const row = await this.transactions.run(async (tx) => {
      const known = UUID.test(id) ? await this.candidates.find(id, tx) : null;
      if (known) await this.examples.lockTask(known.task, tx);
      const candidate = known && (await this.candidates.lock(id, tx));
      if (!candidate) throw new FewloopError('CANDIDATE_NOT_FOUND', `there is no candidate ${id.slice(0, 100)}`);
      await act(candidate, tx);
      return (await this.candidates.find(id, tx))!;
    });
    return (await this.questions.counted([row]))[0]!;
  }

  /** Whether `by` has said the same already. Throws CONFLICT where it has another answer, or may not be answered by them. */
  private async isRepeated(candidate: CandidateRow, labels: string[], by: string, tx: Tx): Promise<boolean> {
    if (isFirst(candidate)) {
      if (candidate.state === 'LABELLED' && sameLabels(labels, candidate.labels)) return true;
      requireOpen(candidate);
      return false;
    }
    if (candidate.reason === 'LABEL_ISSUE') return false;
    const own = (await this.answers.standing(candidate.id, tx)).find(({ answeredBy }) => answeredBy === by);
    if (!own) return false;
    if (sameLabels(own.labels, labels)) return true;
    throw new FewloopError('CONFLICT', 'you have answered it already; another labeler is asked now');
  }

  /**
   * With the first answer. Where the two differ it is no example until a third labeler decides. Where they agree and the
   * first is no longer trusted, it is the second's.
   */
  private async compare(
    candidate: CandidateRow,
    second: string[],
    by: string,
    strategy: string | null,
    tx: Tx,
  ): Promise<void> {
    if (sameLabels(second, candidate.labels)) {
      const example = await this.answerExamples.find(candidate, tx);
      if (example?.revokedAt) await this.answerExamples.put(candidate, second, by, strategy, tx);
      await this.candidates.setAnswer(candidate.id, { ...onlyAnswer(candidate), ...DONE }, tx);
      return;
    }
    await this.answerExamples.withdraw(candidate, tx);
    const open = { state: 'OPEN', labels: null, skipReason: null, answeredBy: null, answeredAt: null } as const;
    await this.candidates.setAnswer(candidate.id, { ...open, ...CHECKS.ADJUDICATION }, tx);
  }

  private async record(
    candidate: CandidateRow,
    said: { labels: string[] | null; skipReason: string | null; before: BeforeAnswer; strategy: string | null },
    by: string,
    tx: Tx,
  ): Promise<void> {
    const asked = candidate.reason ?? (candidate.audit ? 'AUDIT' : 'STRATEGY');
    await this.answers.insert({ task: candidate.task, candidate: candidate.id, answeredBy: by, asked, ...said }, tx);
  }

  private async before(candidate: CandidateRow, tx: Tx): Promise<BeforeAnswer> {
    const example = await this.answerExamples.find(candidate, tx);
    const { answeredAt, ...rest } = onlyAnswer(candidate);
    return {
      candidate: { ...rest, answeredAt: answeredAt?.toISOString() ?? null },
      example: example && {
        labels: example.labels,
        origin: example.origin,
        answeredBy: example.answeredBy,
        strategy: example.strategy,
        revokedAt: example.revokedAt?.toISOString() ?? null,
        givenAt: example.updatedAt.toISOString(),
      },
    };
  }
}

/** Whether nobody has answered it when it is asked. */
const isFirst = ({ reason }: Pick<CandidateAnswer, 'reason'>) => reason === null || reason === 'CHALLENGER';
/** By which query strategy it was asked, where that is known: as who answers says, or as they leased it. */
function strategyOf({ audit, leasedBy, leasedStrategy }: CandidateRow, by: string, said: string | null): string | null {
  if (audit) return 'RANDOM_AUDIT';
  return said ?? (leasedBy === by ? leasedStrategy : null);
}

/**
 * What a filter may name: by a former name too, which texts have that were scored before. Throws BAD_INPUT on
 * `filter.label`.
 */
function checkPredicted(definition: TaskDefinition, { filter }: QueueRequest): void {
  const label = filter?.label ?? null;
  if (label === null || definition.kind === 'multiple-choice' || presentName(definition, label) !== null) return;
  const names = definition.labels.map(({ name }) => name).join(', ');
  throw badInput('filter.label', `"${label.slice(0, 100)}" is not one of ${names}`);
}

const DONE = { reason: null, priority: 0 };
/** Doubtful labels have the priority of their doubt, in [0, 1]. */
const CHECKS = {
  SECOND_ANSWER: { reason: 'SECOND_ANSWER', priority: 2 },
  ADJUDICATION: { reason: 'ADJUDICATION', priority: 3 },
} as const;

function isDrawnTwice({ name, learning }: TaskDefinition, { splitGroup }: CandidateRow): boolean {
  return fraction('agreement', name, splitGroup) < (learning.agreement?.share ?? 0);
}

function onlyAnswer(answer: CandidateAnswer): CandidateAnswer {
  const { state, labels, skipReason, answeredBy, answeredAt, reason, priority } = answer;
  return { state, labels, skipReason, answeredBy, answeredAt, reason, priority };
}

function now(by: string): { answeredBy: string; answeredAt: Date } {
  return { answeredBy: by, answeredAt: new Date() };
}

function requireOpen({ state }: CandidateRow): void {
  if (state === 'OPEN') return;
  throw new FewloopError('CONFLICT', state === 'LABELLED' ? 'it has another label already' : 'it was skipped');
}
