/**
 * The steps of inference, in order: render → tokenize → batch → infer → combine → score → route.
 * A step is a function over plain values; the queue between batch and infer is the one that keeps state (infer.ts).
 * An item that cannot be scored fails alone. Imports `task` alone; models are behind the GraphRunner port.
 */
import { FewloopError } from '../common/errors.js';
import type { Item, ServingPolicy } from '../task/types.js';
import type { Row } from './batch.js';
import type { BatchQueue, RowOutcome, RowResult } from './infer.js';
import { layOut, questionOf, scoresOf, shortlisted, textsOfQuestion, type LaidOut } from './question.js';
import { route } from './route.js';
import { memberDistribution, score, scoreIndependent } from './score.js';
import { Vocabulary } from './tokenize.js';
import type { ClassifyRequest, Encoding, Member, Prediction, ServedModel } from './types.js';

/** What one member said of one item, before offsets. */
export interface MemberScores {
  member: string;
  /** One a row that it renders: of a member with hypotheses one a label, in order. */
  encodings: Encoding[];
  /** One a label of the item, in order. */
  scores: number[];
}

export type ItemScores =
  { ok: true; labels: string[]; members: MemberScores[]; embedding: Float32Array } | { ok: false; error: FewloopError };

const DEFAULT_THRESHOLD = 0.5;

/** Rows in, their outcomes in the same order out. */
type Ask = (rows: Row[][]) => Promise<RowOutcome[][]>;

/** render → tokenize → batch → infer → combine: what each of `members` says of each item, in order. */
export async function scoreMembers(
  model: ServedModel,
  members: Member[],
  items: Item[],
  queue: BatchQueue,
  options: Pick<ClassifyRequest, 'priority' | 'deadlineAt'>,
): Promise<ItemScores[]> {
  const asked = items.map((item) => attempt(() => members.map((member) => questionOf(model, member, item))));
  const vocabulary = new Vocabulary(model.tokenizer);
  await vocabulary.learn(asked.flatMap((a) => (a instanceof FewloopError ? [] : a.flatMap(textsOfQuestion))));
  const laidOut = asked.map((a) =>
    a instanceof FewloopError ? a : attempt(() => a.map((question) => layOut(model, question, vocabulary))),
  );
  const all = laidOut.flatMap((one) => (one instanceof FewloopError ? [] : one));
  const answers = new Map<LaidOut, Answer | FewloopError>();
  (await answer(all, (rows) => askOnce(model, rows, queue, options))).forEach((said, i) => answers.set(all[i]!, said));
  return laidOut.map((own): ItemScores => {
    if (own instanceof FewloopError) return { ok: false, error: own };
    return scoresOfItem(
      own,
      own.map((one) => answers.get(one)!),
    );
  });
}

/** score → route. */
export function predict(
  model: ServedModel,
  members: Member[],
  policy: ServingPolicy,
  { labels, members: said }: Extract<ItemScores, { ok: true }>,
): Prediction {
  const { kind, routing } = model.definition;
  const scored = members.map((member, i) => ({
    member,
    distribution: memberDistribution(kind, said[i]!.scores, offsetsOf(member, labels)),
  }));
  const calibration = model.policies[policy] ?? { temperature: 1, calibrated: false };
  const result =
    kind === 'multi-label'
      ? scoreIndependent(labels, scored, calibration, thresholdsOf(model, labels))
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
  return labels.map((label) => member.offsets[label] ?? 0);
}

function thresholdsOf({ thresholds }: ServedModel, labels: string[]): number[] {
  return labels.map((label) => thresholds[label] ?? DEFAULT_THRESHOLD);
}

interface Answer {
  scores: number[];
  /** Of the first row. */
  embedding: Float32Array;
}

/** Where a member has a shortlist its text is asked about first, then the labels that are near it. */
async function answer(all: LaidOut[], ask: Ask): Promise<(Answer | FewloopError)[]> {
  const first = await ask(all.map(({ rows, textRow }) => (textRow ? [textRow] : rows)));
  const listed = all.map(({ question, rows, textRow }, i) => {
    const [text] = first[i]!;
    if (!textRow) return rows.map((_, row) => row);
    return text instanceof FewloopError ? [] : shortlisted(question, text!.embedding);
  });
  const second = await ask(all.map(({ rows, textRow }, i) => (textRow ? listed[i]!.map((row) => rows[row]!) : [])));
  return all.map(({ question, textRow }, i) => {
    const outcomes = textRow ? [...first[i]!, ...second[i]!] : first[i]!;
    const failed = outcomes.find((outcome) => outcome instanceof FewloopError);
    if (failed) return failed;
    const results = outcomes as RowResult[];
    return {
      scores: scoresOf(question, listed[i]!, textRow ? results.slice(1) : results),
      embedding: results[0]!.embedding,
    };
  });
}

/** A rendering that several items or members share is scored once. */
async function askOnce(
  model: ServedModel,
  asked: Row[][],
  queue: BatchQueue,
  options: Pick<ClassifyRequest, 'priority' | 'deadlineAt'>,
): Promise<RowOutcome[][]> {
  const distinct = new Map<string, { row: Row; index: number }>();
  const indices = asked.map((rows) =>
    rows.map((row) => {
      const key = rowKey(row);
      const known = distinct.get(key) ?? { row, index: distinct.size };
      distinct.set(key, known);
      return known.index;
    }),
  );
  const padId = model.tokenizer.tokenToId('[PAD]') ?? 0;
  const rows = [...distinct.values()].map(({ row }) => row);
  const outcomes = await queue.submit(model.runner, rows, padId, options);
  return indices.map((own) => own.map((index) => outcomes[index]!));
}

function rowKey({ graph, encoding, words }: Row): string {
  const { ids, typeIds, maskPositions } = encoding;
  return `${graph}|${ids.join()}|${typeIds.indexOf(1)}|${maskPositions.join()}|${words.join(';')}`;
}

function scoresOfItem(laidOut: LaidOut[], answers: (Answer | FewloopError)[]): ItemScores {
  const members: MemberScores[] = [];
  for (const [i, said] of answers.entries()) {
    if (said instanceof FewloopError) return { ok: false, error: said };
    const { question, rows } = laidOut[i]!;
    members.push({
      member: question.member.id,
      encodings: rows.map(({ encoding }) => encoding),
      scores: said.scores,
    });
  }
  const { embedding } = answers[0] as Answer;
  return { ok: true, labels: laidOut[0]!.question.labels, members, embedding };
}

function attempt<T>(step: () => T): T | FewloopError {
  try {
    return step();
  } catch (error) {
    if (error instanceof FewloopError) return error;
    throw error;
  }
}
