/**
 * The DIVERSE strategy: of the texts that the model is least sure of, those that are unlike each other (diverse.ts), by
 * the embeddings of the model that answers now. Before there is any label the model's doubts say little: then of the
 * reservoir, a uniform sample, and by turns of the label that they are predicted to have.
 */
import { Inject, Injectable } from '@nestjs/common';
import { LRUCache } from 'lru-cache';
import { FewloopError } from '../common/errors.js';
import { InferenceEngine } from '../inference/engine.js';
import { ActivationService } from '../registry/activation.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { QuestionsRepository, type QuestionGlance, type QuestionView } from '../storage/questions.repository.js';
import { itemOf } from './data-set.js';
import { diverseOrder, type Point } from './diverse.js';

/** Texts that are compared with each other; to embed them costs a pass of one member each, once. */
export const DIVERSE_AMONG = 256;

interface Asked extends Point {
  id: string;
}

class Begun {
  readonly #order: Generator<number, void>;
  readonly #ids: string[] = [];

  constructor(
    readonly points: Asked[],
    byLabel: boolean,
  ) {
    this.#order = diverseOrder(points, { byLabel });
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
  /** By task, version and item key; 2 MB of a base model of 512 dimensions. */
  private readonly known = new LRUCache<string, Float32Array>({ max: 4 * DIVERSE_AMONG });
  private readonly orders = new LRUCache<string, Begun>({ max: 16 });

  constructor(
    @Inject(QuestionsRepository) private readonly questions: QuestionsRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
  ) {}

  /**
   * Ids of what a task begins with that has no label to train on, whatever its strategy is later, in order. Null: it has
   * some, its reservoir has no question, or no model can compare them now; who would label does not wait for one.
   */
  async coldStart(task: string, view: QuestionView, most: number): Promise<string[] | null> {
    if (await this.examples.hasTrain(task)) return null;
    try {
      const listed = await this.list(task, view, most);
      return listed.length > 0 ? listed : null;
    } catch (error) {
      if (error instanceof FewloopError) return null;
      throw error;
    }
  }

  /** Ids of the first `most` of at most DIVERSE_AMONG questions, in order. Throws NO_ACTIVE_MODEL, OVERLOADED. */
  async list(task: string, view: QuestionView, most = Infinity): Promise<string[]> {
    const { points, cold } = await this.among(task, view);
    return this.begun(points, cold).first(most);
  }

  /** How many `list` has. Throws as it does. */
  async count(task: string, view: QuestionView): Promise<number> {
    return (await this.among(task, view)).points.length;
  }

  private async among(task: string, view: QuestionView): Promise<{ points: Asked[]; cold: boolean }> {
    const cold = !(await this.examples.hasTrain(task));
    const found = cold
      ? await this.questions.sampled(task, DIVERSE_AMONG, view)
      : await this.questions.closest(task, DIVERSE_AMONG, view);
    const embeddings = await this.embeddingsOf(task, found);
    const points = found.flatMap(({ id, margin, predictedLabel: label }, i) => {
      const embedding = embeddings[i];
      return embedding ? [{ id, embedding, uncertainty: 1 - Math.min(1, Math.max(0, margin)), label }] : [];
    });
    return { points, cold };
  }

  /** An order as far as it was asked for: whoever turns a page goes on with it, while the questions are the same. */
  private begun(points: Asked[], cold: boolean): Begun {
    const key = [cold, ...points.map(({ id, uncertainty }) => `${id} ${uncertainty}`)].join();
    // Embedded by another version, the same questions are other points.
    const known = this.orders.get(key);
    if (known && known.points.every(({ embedding }, i) => embedding === points[i]!.embedding)) return known;
    const begun = new Begun(points, cold);
    this.orders.set(key, begun);
    return begun;
  }

  /** Null: the model cannot score it. */
  private async embeddingsOf(task: string, questions: QuestionGlance[]): Promise<(Float32Array | null)[]> {
    if (questions.length === 0) return [];
    const lease = await this.activation.current(task);
    try {
      const keyOf = ({ itemKey }: QuestionGlance) => `${task} ${lease.model.version} ${itemKey}`;
      // What is looked up counts as used, so that those that come in do not push it out.
      const fresh = questions.filter((question) => !this.known.get(keyOf(question)));
      const embeddings = await this.engine.embeddings(lease.model, fresh.map(itemOf));
      fresh.forEach((question, i) => embeddings[i] && this.known.set(keyOf(question), embeddings[i]));
      return questions.map((question) => this.known.get(keyOf(question)) ?? null);
    } finally {
      lease.release();
    }
  }
}
