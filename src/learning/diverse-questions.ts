/**
 * The DIVERSE strategy: of the texts that the model is least sure of, those that are unlike each other (diverse.ts), by
 * the embeddings of the model that answers now. Before there is any label the model's doubts say little: then of the
 * reservoir, a uniform sample, and by turns of the label that they are predicted to have.
 */
import { Inject, Injectable } from '@nestjs/common';
import { FewloopError } from '../common/errors.js';
import { InferenceEngine } from '../inference/engine.js';
import { ActivationService } from '../registry/activation.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { QuestionsRepository, type QuestionView } from '../storage/questions.repository.js';
import type { Prediction } from '../inference/types.js';
import { itemOf } from './data-set.js';
import { diverseOrder, type Point } from './diverse.js';
import { orderOf } from './query-strategies.js';

/** Texts that are compared with each other; to embed them costs as much as to classify them, once. */
export const DIVERSE_AMONG = 256;

@Injectable()
export class DiverseQuestions {
  constructor(
    @Inject(QuestionsRepository) private readonly questions: QuestionsRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
  ) {}

  /**
   * What a task begins with that has no label to train on, whatever its strategy is later. Null: it has some, its
   * reservoir has no question, or no model can compare them now; who would label does not wait for one.
   */
  async coldStart(task: string, view: QuestionView, most: number): Promise<CandidateRow[] | null> {
    if (await this.examples.hasTrain(task)) return null;
    try {
      const listed = await this.list(task, view, most);
      return listed.length > 0 ? listed : null;
    } catch (error) {
      if (error instanceof FewloopError) return null;
      throw error;
    }
  }

  /** The first `most` of at most DIVERSE_AMONG questions, in order. Throws NO_ACTIVE_MODEL, OVERLOADED. */
  async list(task: string, view: QuestionView, most = Infinity): Promise<CandidateRow[]> {
    const cold = !(await this.examples.hasTrain(task));
    const rows = cold
      ? await this.questions.sampled(task, DIVERSE_AMONG, view)
      : await this.questions.chosen(task, orderOf('BREAKING_TIES')!, null, DIVERSE_AMONG, view);
    const points = await this.pointsOf(task, rows);
    const known = rows.filter((_, i) => points[i]);
    const order = diverseOrder(
      points.filter((point) => point !== null),
      { byLabel: cold, most },
    );
    return order.map((i) => known[i]!);
  }

  /** Null: the model cannot score it. */
  private async pointsOf(task: string, rows: CandidateRow[]): Promise<(Point | null)[]> {
    if (rows.length === 0) return [];
    const lease = await this.activation.current(task);
    try {
      const outcomes = await this.engine.classify(lease.model, { items: rows.map(itemOf), priority: 'interactive' });
      return rows.map((row, i) => {
        const outcome = outcomes[i]!;
        if (!outcome.ok) return null;
        const { label } = row.prediction as Prediction;
        return { embedding: outcome.embedding, uncertainty: 1 - Math.min(1, Math.max(0, row.margin)), label };
      });
    } finally {
      lease.release();
    }
  }
}
