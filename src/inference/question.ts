/**
 * What one member asks of its graph about one item, and what it makes of the answer. Three forms:
 *   label words      PET: one row with masks; the graph scores the words
 *   outputs          fine-tune, embedding, efl for pairs: one row; the graph has an output a label
 *   hypotheses       efl for tagging: one row a label; the graph says how far its description is entailed.
 *                    With a shortlist, a row of the text alone comes first and only the likeliest labels get theirs
 */
import { labelsOf } from '../task/item.js';
import { inputOf } from '../task/template.js';
import type { Item } from '../task/types.js';
import type { Row } from './batch.js';
import { labelScores } from './combine.js';
import type { RowResult } from './infer.js';
import { render, withHypothesis, type RenderedPiece } from './render.js';
import { assemble, textsOf, Vocabulary, wordTokens } from './tokenize.js';
import type { Member, ServedModel } from './types.js';

/** In place of the number of a row: the one that is asked about first where there is a shortlist. */
export const TEXT_ALONE = -1;

/** Score of a label outside the shortlist: its probability is 0. */
const NOT_LISTED = -1e9;

export interface Question {
  member: Member;
  labels: string[];
  /** Label words, flat, and how many of them each label has; none but for PET. */
  words: string[];
  wordCounts: number[];
  /** Of each row; with hypotheses there is one a label, in order, and the place of its own is open. */
  rendering: RenderedPiece[];
  /** Null without a shortlist. */
  textAlone: RenderedPiece[] | null;
}

/** Throws BAD_INPUT where the item cannot be rendered. */
export function questionOf(model: ServedModel, member: Member, item: Item): Question {
  const labels = labelsOf(model.definition, item);
  const { template, shortlist } = member;
  const ownWords = model.definition.kind === 'multiple-choice';
  const words =
    member.method === 'pet' ? labels.map((label) => (ownWords ? [label] : (member.labelWords[label] ?? []))) : [];
  return {
    member,
    labels,
    words: words.flat(),
    wordCounts: words.map(({ length }) => length),
    rendering: render(template, item),
    textAlone: shortlist ? render(inputOf(model.definition), item) : null,
  };
}

/** What is to be tokenized for the rows with the numbers `which`. */
export function textsOfQuestion(question: Question, which: number[]): string[] {
  if (which.length === 0) return [];
  const { words, rendering, textAlone } = question;
  const hypotheses = which.flatMap((row) => hypothesisOf(question, row) ?? []);
  return [...words, ...textsOf(rendering), ...hypotheses, ...textsOf(textAlone ?? [])];
}

/** Numbers of all rows of a question, but for the text alone. */
export function everyRow({ member, labels }: Question): number[] {
  return member.hypotheses ? [...labels.keys()] : [0];
}

/**
 * The question as rows of its graph, those with the numbers `which`: a shortlist leaves out nearly all, and laying them
 * out costs. Throws BAD_INPUT where a label word cannot be spelled or a template leaves no room.
 */
export function layOut(model: ServedModel, question: Question, which: number[], vocabulary: Vocabulary): Row[] {
  if (which.length === 0) return [];
  const { kind, maxLength } = model.definition;
  const { member, words, rendering, textAlone } = question;
  const tokens = wordTokens(words, vocabulary, kind === 'multiple-choice' ? 'choices' : 'labels');
  const masks = tokens[0]?.length ?? 0;
  return which.map((row) => {
    const pieces = row === TEXT_ALONE ? textAlone! : withHypothesis(rendering, hypothesisOf(question, row));
    return { graph: member.graph, encoding: assemble(pieces, vocabulary, masks, maxLength), words: tokens };
  });
}

function hypothesisOf({ member, labels }: Question, row: number): string | undefined {
  return member.hypotheses?.[labels[row]!];
}

/** Which of the question's rows are worth asking, by the embedding of the text alone: those of the likeliest labels. */
export function shortlisted({ member, labels }: Question, embedding: Float32Array): number[] {
  const { size, vectors } = member.shortlist!;
  return nearest(
    embedding,
    labels.map((label) => vectors[label]!),
    size,
  );
}

/**
 * Which `size` of the vectors are nearest to the embedding by dot product, of equals the first; nearest first. Twin of
 * `shortlist_of` in `trainer/fewloop_trainer/scores.py`.
 */
export function nearest(embedding: ArrayLike<number>, vectors: number[][], size: number): number[] {
  const likeness = vectors.map((vector) => dot(embedding, vector));
  const ranked = vectors.map((_, i) => i).sort((a, b) => likeness[b]! - likeness[a]! || a - b);
  return ranked.slice(0, size);
}

/** One a label of the item, in order, before offsets. `asked`: which of the rows the results answer, in that order. */
export function scoresOf(question: Question, asked: number[], results: RowResult[]): number[] {
  const { member, labels, wordCounts } = question;
  if (member.hypotheses) {
    const scores = labels.map(() => NOT_LISTED);
    asked.forEach((label, i) => (scores[label] = results[i]!.logits[1]! - results[i]!.logits[0]!));
    return scores;
  }
  const { logits } = results[0]!;
  return member.method === 'pet' ? labelScores(logits, wordCounts) : Array.from(logits);
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
