/**
 * The steps of inference, in order: render → tokenize → batch → infer → combine → score → route.
 * A step is a function over plain values; the queue between batch and infer is the one that keeps state (infer.ts).
 * An item that cannot be scored fails alone. Imports `task` alone; models are behind the GraphRunner port.
 */
import { FewloopError } from '../common/errors.js';
import { labelsOf } from '../task/item.js';
import type { Item, ServingPolicy } from '../task/types.js';
import type { Row } from './batch.js';
import { distributionOf, labelScores } from './combine.js';
import type { BatchQueue, RowOutcome } from './infer.js';
import { render, type RenderedPiece } from './render.js';
import { route } from './route.js';
import { score } from './score.js';
import { assemble, textsOf, Vocabulary, wordTokens } from './tokenize.js';
import type { ClassifyRequest, Encoding, Member, Prediction, ServedModel } from './types.js';

/** What one member said of one item, before offsets. */
export interface MemberScores {
  member: string;
  encoding: Encoding;
  /** One a label of the item, in order: log-mean-exp over the label's words. */
  scores: number[];
}

export type ItemScores =
  { ok: true; labels: string[]; members: MemberScores[]; embedding: Float32Array } | { ok: false; error: FewloopError };

interface Plan {
  labels: string[];
  /** Label words, flat, and how many of them each label has. */
  words: string[];
  wordCounts: number[];
  pieces: RenderedPiece[];
  member: Member;
}

/** render → tokenize → batch → infer → combine: what each of `members` says of each item, in order. */
export async function scoreMembers(
  model: ServedModel,
  members: Member[],
  items: Item[],
  queue: BatchQueue,
  options: Pick<ClassifyRequest, 'priority' | 'deadlineAt'>,
): Promise<ItemScores[]> {
  const plans = items.map((item) => attempt(() => members.map((member) => planOf(model, member, item))));
  const vocabulary = new Vocabulary(model.tokenizer);
  await vocabulary.learn(plans.flatMap((p) => (p instanceof FewloopError ? [] : p.flatMap(textsOfPlan))));
  const rows = plans.map((p) =>
    p instanceof FewloopError ? p : attempt(() => p.map((plan) => rowOf(model, plan, vocabulary))),
  );

  // A rendering that several items or members share is scored once.
  const distinct = new Map<string, { row: Row; index: number }>();
  for (const row of rows.flatMap((r) => (r instanceof FewloopError ? [] : r))) {
    const key = rowKey(row);
    if (!distinct.has(key)) distinct.set(key, { row, index: distinct.size });
  }
  const padId = model.tokenizer.tokenToId('[PAD]') ?? 0;
  const outcomes = await queue.submit(
    model.runner,
    [...distinct.values()].map((entry) => entry.row),
    padId,
    options,
  );
  return items.map((_, i): ItemScores => {
    const [plan, own] = [plans[i]!, rows[i]!];
    if (plan instanceof FewloopError) return { ok: false, error: plan };
    if (own instanceof FewloopError) return { ok: false, error: own };
    return combineRows(
      plan,
      own,
      own.map((row) => outcomes[distinct.get(rowKey(row))!.index]!),
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
  const scored = members.map((member, i) => ({
    member,
    distribution: distributionOf(said[i]!.scores, offsetsOf(member, labels)),
  }));
  const result = score(labels, scored, model.policies[policy] ?? { temperature: 1, calibrated: false });
  return {
    ...result,
    route: route(result, model.definition.routing),
    modelVersion: model.version,
    taskRevision: model.taskRevision,
  };
}

/** A member's offsets in the order of `labels`. */
export function offsetsOf(member: Pick<Member, 'offsets'>, labels: string[]): number[] {
  return labels.map((label) => member.offsets[label] ?? 0);
}

function planOf(model: ServedModel, member: Member, item: Item): Plan {
  const labels = labelsOf(model.definition, item);
  const own = model.definition.kind === 'multiple-choice';
  const words = labels.map((label) => (own ? [label] : (member.labelWords[label] ?? [])));
  return {
    labels,
    words: words.flat(),
    wordCounts: words.map((w) => w.length),
    pieces: render(member.template, item),
    member,
  };
}

function textsOfPlan(plan: Plan): string[] {
  return [...plan.words, ...textsOf(plan.pieces)];
}

function rowOf(model: ServedModel, plan: Plan, vocabulary: Vocabulary): Row {
  const field = model.definition.kind === 'multiple-choice' ? 'choices' : 'labels';
  const words = wordTokens(plan.words, vocabulary, field);
  const masks = words[0]?.length ?? 0;
  return {
    graph: plan.member.graph,
    encoding: assemble(plan.pieces, vocabulary, masks, model.definition.maxLength),
    words,
  };
}

function rowKey({ graph, encoding, words }: Row): string {
  return `${graph}|${encoding.ids.join()}|${encoding.maskPositions.join()}|${words.join(';')}`;
}

function combineRows(plan: Plan[], rows: Row[], outcomes: RowOutcome[]): ItemScores {
  const members: MemberScores[] = [];
  for (const [i, outcome] of outcomes.entries()) {
    if (outcome instanceof FewloopError) return { ok: false, error: outcome };
    const { member, wordCounts } = plan[i]!;
    members.push({
      member: member.id,
      encoding: rows[i]!.encoding,
      scores: labelScores(outcome.wordLogits, wordCounts),
    });
  }
  const embedding = (outcomes[0] as Exclude<RowOutcome, FewloopError>).embedding;
  return { ok: true, labels: plan[0]!.labels, members, embedding };
}

function attempt<T>(step: () => T): T | FewloopError {
  try {
    return step();
  } catch (error) {
    if (error instanceof FewloopError) return error;
    throw error;
  }
}
