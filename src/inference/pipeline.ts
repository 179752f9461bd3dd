/**
 * The steps of inference, in order: render → tokenize → batch → infer → combine → score → route.
 * A step is a function over plain values; the queue between batch and infer is the one that keeps state (infer.ts).
 * An item that cannot be scored fails alone. Imports `task` alone; models are behind the GraphRunner port.
 */
import { FewloopError } from '../common/errors.js';
import type { Item, ServingPolicy } from '../task/types.js';
import { rowKey, type Row } from './batch.js';
import { inOrder } from './by-label.js';
import { fewestAsked, isDecided } from './in-turn.js';
import { DEFAULT_THRESHOLD } from './independent.js';
import type { BatchQueue, RowOutcome, RowResult, SubmitOptions } from './infer.js';
import { inPortions, LABELS_A_ROW } from './portions.js';
import {
  everyRow,
  layOut,
  questionOf,
  scoresOf,
  shortlisted,
  TEXT_ALONE,
  textsOfQuestion,
  type Question,
} from './question.js';
import { route } from './route.js';
import { memberDistribution, score, scoreIndependent } from './score.js';
import { Vocabulary } from './tokenize.js';
import type { Encoding, Member, Prediction, ServedModel } from './types.js';

/** What one member said of one item, before offsets. */
export interface MemberScores {
  member: string;
  /** One a label of the item, in order. */
  scores: number[];
}

interface Scored {
  ok: true;
  labels: string[];
  members: MemberScores[];
  /** Of the first of them. */
  embedding: Float32Array;
}

/** A graph that overflows, or whose weights are damaged, prefers no label: the first one is not its answer. */
export class NoNumber extends FewloopError {
  constructor({ id }: Pick<Member, 'id'>) {
    super('INTERNAL', `member ${id}: what its graph answered is no number`);
  }
}

export type ItemScores = Scored | { ok: false; error: FewloopError };

/** render → tokenize → batch → infer → combine: what each of `members` says of each item, in order. */
export async function scoreMembers(
  model: ServedModel,
  members: Member[],
  items: Item[],
  queue: BatchQueue,
  options: SubmitOptions,
  vocabulary = new Vocabulary(model.tokenizer),
): Promise<ItemScores[]> {
  const asked = await inPortions(
    items,
    () => members.length,
    (item) => attempt(() => members.map((member) => questionOf(model, member, item))),
  );
  const all = asked.flatMap((questions) => (questions instanceof FewloopError ? [] : questions));
  const answers = await answer(model, all, vocabulary, (rows) => askOnce(model, rows, queue, options));
  const answerTo = new Map(all.map((question, i) => [question, answers[i]!]));
  return asked.map((questions): ItemScores => {
    if (questions instanceof FewloopError) return { ok: false, error: questions };
    return scoresOfItem(
      questions,
      questions.map((question) => answerTo.get(question)!),
    );
  });
}

/**
 * The same, but of each item only the first of `members`, which are in turn, until its label is certain (in-turn.ts): so
 * many at once that they could decide, then one by one.
 */
export async function scoreInTurn(
  model: ServedModel,
  members: Member[],
  items: Item[],
  queue: BatchQueue,
  options: SubmitOptions,
): Promise<ItemScores[]> {
  const vocabulary = new Vocabulary(model.tokenizer);
  const first = fewestAsked(members);
  const scores = await scoreMembers(model, members.slice(0, first), items, queue, options, vocabulary);
  for (let asked = first; asked < members.length; asked++) {
    const open = scores.flatMap((scored, i) => (scored.ok && !isCertain(model, members, scored) ? [i] : []));
    if (open.length === 0) break;
    const next = members.slice(asked, asked + 1);
    const more = await scoreMembers(
      model,
      next,
      open.map((i) => items[i]!),
      queue,
      options,
      vocabulary,
    );
    open.forEach((i, n) => (scores[i] = bothOf(scores[i]!, more[n]!)));
  }
  return scores;
}

function isCertain(model: ServedModel, members: Member[], { labels, members: said }: Scored): boolean {
  return isDecided(
    members,
    said.map(({ scores }, i) => memberDistribution(model.definition.kind, scores, offsetsOf(members[i]!, labels))),
  );
}

function bothOf(before: ItemScores, after: ItemScores): ItemScores {
  return before.ok && after.ok ? { ...before, members: [...before.members, ...after.members] } : after;
}

/** Every row that the member may ask about the item, laid out by the steps that serve. Throws BAD_INPUT. */
export async function encodingsOf(model: ServedModel, member: Member, item: Item): Promise<Encoding[]> {
  const question = questionOf(model, member, item);
  const vocabulary = new Vocabulary(model.tokenizer);
  const rows = everyRow(question);
  await vocabulary.learn(textsOfQuestion(question, rows));
  return layOut(model, question, rows, vocabulary).map(({ encoding }) => encoding);
}

/** score → route; of those of the `members` who were asked, the first ones. */
export function predict(
  model: ServedModel,
  members: Member[],
  policy: ServingPolicy,
  { labels, members: said }: Scored,
): Prediction {
  const { kind, routing } = model.definition;
  const scored = said.map(({ scores }, i) => ({
    member: members[i]!,
    distribution: memberDistribution(kind, scores, offsetsOf(members[i]!, labels)),
  }));
  const calibration = model.policies[policy] ?? { temperature: 1, calibrated: false };
  const result =
    kind === 'multi-label'
      ? scoreIndependent(labels, scored, calibration, inOrder(model.thresholds, labels, DEFAULT_THRESHOLD))
      : score(labels, scored, calibration);
  return {
    ...result,
    route: route(result, routing),
    modelVersion: model.version,
    taskRevision: model.taskRevision,
  };
}

/** A member's offsets in the order of `labels`. */
export function offsetsOf(member: Pick<Member, 'offsets'>, labels: string[]): number[] {
  return inOrder(member.offsets, labels, 0);
}

interface Answer {
  scores: number[];
  /** Of the first row. */
  embedding: Float32Array;
}

/** Each question's rows in, their results out, in order; one row that fails fails its question. */
type Ask = (rows: (Row[] | FewloopError)[]) => Promise<(RowResult[] | FewloopError)[]>;

/** Where a member has a shortlist its text is asked about first, then the labels that are near it. */
async function answer(
  model: ServedModel,
  questions: Question[],
  vocabulary: Vocabulary,
  ask: Ask,
): Promise<(Answer | FewloopError)[]> {
  const before = questions.map((question) => (question.textAlone ? [TEXT_ALONE] : everyRow(question)));
  const first = await ask(await rowsOf(model, questions, before, vocabulary));
  let listed: number[][] = [];
  let second: typeof first = [];
  if (questions.some(({ textAlone }) => textAlone)) {
    listed = await inPortions(questions, weightOfLabels, (question, i) => {
      const alone = first[i]!;
      return alone instanceof FewloopError || !question.textAlone ? [] : shortlisted(question, alone[0]!.embedding);
    });
    second = await ask(await rowsOf(model, questions, listed, vocabulary));
  }
  return inPortions(questions, weightOfLabels, (question, i) => {
    const began = first[i]!;
    return question.textAlone
      ? answerOf(question, listed[i]!, second[i]!, began)
      : answerOf(question, before[i]!, began);
  });
}

/** What the rows with the numbers `which` said; `began`: the rows that were asked first, where those are others. */
function answerOf(
  question: Question,
  which: number[],
  said: RowResult[] | FewloopError,
  began = said,
): Answer | FewloopError {
  if (began instanceof FewloopError) return began;
  if (said instanceof FewloopError) return said;
  const scores = scoresOf(question, which, said);
  const { embedding } = began[0]!;
  // By the embedding of the text alone the labels were chosen.
  const isNumeric = scores.every(Number.isFinite) && (!question.textAlone || embedding.every(Number.isFinite));
  return isNumeric ? { scores, embedding } : new NoNumber(question.member);
}

/** Of each question the rows with its numbers, tokenized and laid out. */
async function rowsOf(
  model: ServedModel,
  questions: Question[],
  which: number[][],
  vocabulary: Vocabulary,
): Promise<(Row[] | FewloopError)[]> {
  const asked = questions.map((question, i) => ({ question, rows: which[i]! }));
  const weightOf = ({ rows }: { rows: number[] }) => rows.length;
  const texts = new Set<string>();
  await inPortions(asked, weightOf, ({ question, rows }) => {
    for (const text of textsOfQuestion(question, rows)) texts.add(text);
  });
  await vocabulary.learn(texts);
  return inPortions(asked, weightOf, ({ question, rows }) => attempt(() => layOut(model, question, rows, vocabulary)));
}

function weightOfLabels({ labels }: Pick<Question, 'labels'>): number {
  return labels.length / LABELS_A_ROW;
}

/** A rendering that several items or members share is scored once. */
async function askOnce(
  model: ServedModel,
  asked: (Row[] | FewloopError)[],
  queue: BatchQueue,
  options: SubmitOptions,
): Promise<(RowResult[] | FewloopError)[]> {
  const distinct = new Map<string, { row: Row; index: number }>();
  const weightOf = (rows: Row[] | FewloopError) => (rows instanceof FewloopError ? 0 : rows.length);
  const indices = await inPortions(asked, weightOf, (rows) => {
    if (rows instanceof FewloopError) return rows;
    return rows.map((row) => {
      const key = rowKey(row);
      const known = distinct.get(key) ?? { row, index: distinct.size };
      distinct.set(key, known);
      return known.index;
    });
  });
  const padId = model.tokenizer.tokenToId('[PAD]') ?? 0;
  const rows = [...distinct.values()].map(({ row }) => row);
  const outcomes = await queue.submit({ ...model, padId }, rows, options);
  return indices.map((own) => (own instanceof FewloopError ? own : wholly(own.map((index) => outcomes[index]!))));
}

function wholly(outcomes: RowOutcome[]): RowResult[] | FewloopError {
  const results: RowResult[] = [];
  for (const outcome of outcomes) {
    if (outcome instanceof FewloopError) return outcome;
    results.push(outcome);
  }
  return results;
}

function scoresOfItem(questions: Question[], answers: (Answer | FewloopError)[]): ItemScores {
  const members: MemberScores[] = [];
  for (const [i, said] of answers.entries()) {
    if (said instanceof FewloopError) return { ok: false, error: said };
    members.push({ member: questions[i]!.member.id, scores: said.scores });
  }
  const { embedding } = answers[0] as Answer;
  return { ok: true, labels: questions[0]!.labels, members, embedding };
}

function attempt<T>(step: () => T): T | FewloopError {
  try {
    return step();
  } catch (error) {
    if (error instanceof FewloopError) return error;
    throw error;
  }
}
