/**
 * The DIVERSE strategy, and what is asked where none is named: of the texts that the model is least sure of those first
 * that stand for most others (diverse.ts), by the embeddings of the model that answers now. What people have answered
 * since that model was made counts as asked. Before there is any label the model's doubts say little: then of the
 * reservoir, a uniform sample, and by turns of the label that they are predicted to have.
 */
import { Inject, Injectable } from '@nestjs/common';
import { LRUCache } from 'lru-cache';
import { FewloopError } from '../common/errors.js';
import { InferenceEngine } from '../inference/engine.js';
import type { ServedModel } from '../inference/types.js';
import { ActivationService } from '../registry/activation.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import {
  QuestionsRepository,
  type QuestionGlance,
  type QuestionPosition,
  type QuestionView,
} from '../storage/questions.repository.js';
import { itemOf } from './data-set.js';
import { diverseOrder, type Point } from './diverse.js';

/** Texts that are compared with each other; to embed them costs a pass of one member each, once. */
export const DIVERSE_AMONG = 128;
/** The same of a sample, which has fewer that are worth it. */
const SAMPLED = 2 * DIVERSE_AMONG;
/** A run comes long before there are more, mostly. */
const ANSWERED = 64;

/** A question's place in the order. */
export interface Place {
  id: string;
  index: number;
}

type Embeddable = Pick<QuestionGlance, 'itemKey' | 'text' | 'textPair' | 'choices' | 'fields'>;

interface Asked extends Point {
  id: string;
}

class Begun {
  readonly #order: Generator<number, void>;
  readonly #ids: string[] = [];

  constructor(
    readonly points: Asked[],
    byLabel: boolean,
    answered: readonly Float32Array[],
  ) {
    this.#order = diverseOrder(points, { byLabel, answered });
  }

  first(most: number): string[] {
    while (this.#ids.length < most) {
      const next = this.#order.next();
      if (next.done) break;
      this.#ids.push(this.points[next.value]!.id);
    }
    return this.#ids.slice(0, most);
  }
}

@Injectable()
export class DiverseQuestions {
  /** By task, version and item key; 8 MB of a base model of 512 dimensions. */
  private readonly known = new LRUCache<string, Float32Array>({ max: 32 * DIVERSE_AMONG });
  private readonly orders = new LRUCache<string, Begun>({ max: 16 });

  constructor(
    @Inject(QuestionsRepository) private readonly questions: QuestionsRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
  ) {}

  /** `list`, or null where it has nothing, or no model can compare questions now: who would label does not wait for one. */
  async listIfAny(task: string, view: QuestionView, most: number): Promise<Place[] | null> {
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
  async list(task: string, view: QuestionView, after: QuestionPosition | null, most: number): Promise<Place[]> {
    const cold = !(await this.examples.hasTrain(task));
    const among = cold ? SAMPLED : DIVERSE_AMONG;
    const places: Place[] = [];
    let next = after?.values[0] ?? 0;
    let last = after;
    for (;;) {
      const skipped = next - (next % among);
      const found = cold
        ? await this.questions.sampled(task, among, skipped, view)
        : await this.questions.closest(task, among, skipped, view);
      const order = await this.begun(task, found, cold);
      if (last !== null) {
        // Behind the row where the page before ended; once that is answered, the others have moved up by one.
        const known = order.first(next - skipped + 1).indexOf(last.id);
        if (known !== -1) next = skipped + known + 1;
        last = null;
      }
      const ids = order.first(next - skipped + most - places.length).slice(next - skipped);
      places.push(...ids.map((id, i) => ({ id, index: next + i })));
      if (places.length >= most || found.length < among) return places;
      next = skipped + among;
    }
  }

  /** An order as far as it was asked for: whoever turns a page goes on with it, while the questions are the same. */
  private async begun(task: string, found: QuestionGlance[], cold: boolean): Promise<Begun> {
    if (found.length === 0) return new Begun([], cold, []);
    const lease = await this.activation.current(task);
    try {
      const { version } = lease.model;
      const taught = cold ? [] : await this.examples.taughtSince(task, version, ANSWERED);
      const embeddings = await this.embeddingsOf(lease.model, [...found, ...taught]);
      const points = found.flatMap(({ id, margin, predictedLabel: label }, i): Asked[] => {
        const embedding = embeddings[i];
        return embedding ? [{ id, embedding, uncertainty: 1 - Math.min(1, Math.max(0, margin)), label }] : [];
      });
      const asked = points.map(({ id, uncertainty }) => `${id} ${uncertainty}`);
      const key = [cold, ...asked, ...taught.map(({ itemKey }) => itemKey)].join();
      // Embedded by another version, the same questions are other points.
      const known = this.orders.get(key);
      if (known && known.points.every(({ embedding }, i) => embedding === points[i]!.embedding)) return known;
      const answered = embeddings.slice(found.length).filter((embedding) => embedding !== null);
      const begun = new Begun(points, cold, answered);
      this.orders.set(key, begun);
      return begun;
    } finally {
      lease.release();
    }
  }

  /** Null: the model cannot score it. */
  private async embeddingsOf(model: ServedModel, texts: Embeddable[]): Promise<(Float32Array | null)[]> {
    const keyOf = ({ itemKey }: Embeddable) => `${model.task} ${model.version} ${itemKey}`;
    // What is looked up counts as used, so that those that come in do not push it out.
    const fresh = texts.filter((text) => !this.known.get(keyOf(text)));
    const embeddings = await this.engine.embeddings(model, fresh.map(itemOf));
    fresh.forEach((text, i) => embeddings[i] && this.known.set(keyOf(text), embeddings[i]));
    return texts.map((text) => this.known.get(keyOf(text)) ?? null);
  }
}
