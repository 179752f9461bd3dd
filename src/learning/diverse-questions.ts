/**
 * The DIVERSE strategy, and what is asked where none is named: of the texts that the model is least sure of those first
 * that stand for most others (diverse.ts), by the embeddings of the model that answers now. What people have answered
 * since that model was made counts as asked. Before there is any label the model's doubts say little: then of the
 * reservoir, a uniform sample, and by turns of the label that they are predicted to have.
 */
import { Inject, Injectable } from '@nestjs/common';
import { LRUCache } from 'lru-cache';
import { createHash } from 'node:crypto';
import { FewloopError } from '../common/errors.js';
import { InferenceEngine } from '../inference/engine.js';
import { policyOf } from '../inference/policy.js';
import type { ServedModel } from '../inference/types.js';
import { ActivationService } from '../registry/activation.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import {
  positionOf,
  QuestionsRepository,
  type QuestionGlance,
  type QuestionOrder,
  type QuestionPosition,
  type QuestionView,
} from '../storage/questions.repository.js';
import { itemOf } from './data-set.js';
import { diverseOrder, type Point } from './diverse.js';
import { BY_MARGIN } from './query-strategies.js';

/** Texts that are compared with each other; to embed them costs a pass of one member each, once. */
export const DIVERSE_AMONG = 128;
/** The same of a sample, which has fewer that are worth it. */
const SAMPLED = 2 * DIVERSE_AMONG;
const AT_RANDOM: QuestionOrder[] = [{ column: 'reservoirRank', direction: 'ASC' }];
/** A run comes long before there are more, mostly. */
const ANSWERED = 64;

/** A question's place: the `index`-th of those that were compared in that order, which are the ones behind `behind`. */
export interface Place {
  id: string;
  index: number;
  /** Digest of all that the order follows from. */
  order: string;
  /** Null: the first of all. */
  behind: QuestionPosition | null;
}

export interface Placed {
  row: CandidateRow;
  place: Place;
}

type Embeddable = Pick<QuestionGlance, 'itemKey' | 'text' | 'textPair' | 'choices' | 'fields'>;

interface Asked extends Point {
  id: string;
}

/** Which questions are compared with each other: so many, in that order, behind a row. */
interface Comparison {
  order: QuestionOrder[];
  behind: QuestionPosition | null;
  among: number;
}

/** An order, as far as it was asked for. */
class Begun {
  readonly #order: Generator<number, void>;
  readonly #ids: string[] = [];

  constructor(
    readonly digest: string,
    /** The last of them by the column's order. */
    readonly until: QuestionPosition,
    readonly isLast: boolean,
    private readonly points: Asked[],
    byLabel: boolean,
    answered: readonly Float32Array[],
  ) {
    this.#order = diverseOrder(points, { byLabel, answered });
  }

  slice(from: number, to: number): string[] {
    while (this.#ids.length < to) {
      const next = this.#order.next();
      if (next.done) break;
      this.#ids.push(this.points[next.value]!.id);
    }
    return this.#ids.slice(from, to);
  }
}

@Injectable()
export class DiverseQuestions {
  /**
   * By task, version, serving policy, which decides whose embeddings they are, and item key; 8 MB of a base model of 512
   * dimensions.
   */
  private readonly known = new LRUCache<string, Float32Array>({ max: 32 * DIVERSE_AMONG });
  /** By digest. Whoever turns a page goes on with the order that the page before had, whatever was answered meanwhile. */
  private readonly orders = new LRUCache<string, Begun>({ max: 64 });

  constructor(
    @Inject(QuestionsRepository) private readonly questions: QuestionsRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
  ) {}

  /** `list`, or null where it has nothing, or no model can compare questions now: who would label does not wait for one. */
  async listIfAny(task: string, view: QuestionView, most: number): Promise<Placed[] | null> {
    try {
      const listed = await this.list(task, view, null, most);
      return listed.length > 0 ? listed : null;
    } catch (error) {
      if (error instanceof FewloopError) return null;
      throw error;
    }
  }

  /**
   * At most `most` questions behind `after`, in order: those of the DIVERSE_AMONG closest calls (cold: of a sample), then
   * of as many further ones. Throws NO_ACTIVE_MODEL, OVERLOADED.
   */
  async list(task: string, view: QuestionView, after: Place | null, most: number): Promise<Placed[]> {
    const cold = !(await this.examples.hasTrain(task));
    const [order, among] = cold ? [AT_RANDOM, SAMPLED] : [BY_MARGIN, DIVERSE_AMONG];
    const placed: Placed[] = [];
    const kept = after && this.orders.get(after.order);
    // A place that was given before the first label is of another order: it begins anew.
    const isOther = [after?.behind, kept?.until].some((at) => at && at.values.length !== order.length);
    let shown = isOther ? null : after;
    let behind = shown?.behind ?? null;
    for (;;) {
      const had = shown && kept;
      const begun = had ?? (await this.begin(task, view, { order, behind, among }));
      if (!begun) return placed;
      let index = 0;
      if (shown) {
        // Where another process gave the place, or this one long ago, it is the nearest one that this order has.
        const at = had ? shown.index : begun.slice(0, shown.index + 1).indexOf(shown.id);
        index = at === -1 ? shown.index : at + 1;
        shown = null;
      }
      for (;;) {
        const ids = begun.slice(index, index + most - placed.length);
        if (ids.length === 0) break;
        const rows = await this.questions.stillChosen(task, ids, view);
        for (const row of rows) {
          placed.push({ row, place: { id: row.id, index: index + ids.indexOf(row.id), order: begun.digest, behind } });
        }
        index += ids.length;
      }
      if (placed.length === most || begun.isLast) return placed;
      behind = begun.until;
    }
  }

  /** Null: there are none. */
  private async begin(task: string, view: QuestionView, { order, behind, among }: Comparison): Promise<Begun | null> {
    const found = await this.questions.glances(task, order, behind, among, view);
    if (found.length === 0) return null;
    const lease = await this.activation.current(task);
    try {
      const { version } = lease.model;
      const cold = order === AT_RANDOM;
      const taught = cold ? [] : await this.examples.taughtSince(task, version, ANSWERED);
      const asked = found.map(({ id, margin }) => `${id} ${margin}`);
      const from = JSON.stringify([
        task,
        version,
        policyOf(lease.model),
        cold,
        asked,
        taught.map(({ itemKey }) => itemKey),
      ]);
      const digest = createHash('sha256').update(from).digest('hex');
      const known = this.orders.get(digest);
      if (known) return known;
      const embeddings = await this.embeddingsOf(lease.model, [...found, ...taught]);
      const points = found.flatMap(({ id, margin, predictedLabel: label }, i): Asked[] => {
        const embedding = embeddings[i];
        return embedding ? [{ id, embedding, uncertainty: 1 - Math.min(1, Math.max(0, margin)), label }] : [];
      });
      const answered = embeddings.slice(found.length).filter((embedding) => embedding !== null);
      const begun = new Begun(digest, positionOf(order, found.at(-1)!), found.length < among, points, cold, answered);
      this.orders.set(digest, begun);
      return begun;
    } finally {
      lease.release();
    }
  }

  /** Null: the model cannot score it. */
  private async embeddingsOf(model: ServedModel, texts: Embeddable[]): Promise<(Float32Array | null)[]> {
    const policy = policyOf(model);
    const keyOf = ({ itemKey }: Embeddable) => `${model.task} ${model.version} ${policy} ${itemKey}`;
    // What is looked up counts as used, so that those that come in do not push it out.
    const fresh = texts.filter((text) => !this.known.get(keyOf(text)));
    const embeddings = await this.engine.embeddings(model, fresh.map(itemOf));
    fresh.forEach((text, i) => embeddings[i] && this.known.set(keyOf(text), embeddings[i]));
    return texts.map((text) => this.known.get(keyOf(text)) ?? null);
  }
}
