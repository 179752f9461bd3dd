/**
 * How far successive versions agree on unlabelled texts, measured at the end of each run, and what that and the learning
 * curve say of further answers (stopping.ts). Imports of other modules: inference, registry, storage, task.
 */
import { Inject, Injectable } from '@nestjs/common';
import { InferenceEngine } from '../inference/engine.js';
import { ActivationService } from '../registry/activation.js';
import { PromotionsRepository } from '../storage/promotions.repository.js';
import { TrainingTextsRepository } from '../storage/training-texts.repository.js';
import { VersionAgreementsRepository } from '../storage/version-agreements.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import type { Item, TaskDefinition } from '../task/types.js';
import { itemOf, namedNow } from './data-set.js';
import { AGREEMENTS, kappaOf, stoppingOf, type Stopping } from './stopping.js';

const TEXTS = 300;
const LEAST_TEXTS = 30;
const TEXTS_AT_ONCE = 32;
/** Versions among which the one that the run before made is looked for, and that the curve is drawn by. */
const RECENT = 20;

@Injectable()
export class VersionAgreement {
  constructor(
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(PromotionsRepository) private readonly promotions: PromotionsRepository,
    @Inject(VersionAgreementsRepository) private readonly agreements: VersionAgreementsRepository,
    @Inject(TrainingTextsRepository) private readonly texts: TrainingTextsRepository,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
  ) {}

  /** With the version that the run before made; nothing where there is none, or there are few texts. */
  async measure(task: string, version: number): Promise<void> {
    // Those that repeat a run, and so agree by themselves, have no promotion.
    const judged = new Set((await this.promotions.list(task, RECENT)).map((promotion) => promotion.version));
    const made = (await this.versions.list(task, RECENT)).filter((row) => judged.has(row.version));
    const before = made.find((row) => row.version < version);
    const now = made.find((row) => row.version === version);
    const items = (await this.texts.reservoir(task, TEXTS)).map(itemOf);
    if (!before || !now || items.length < LEAST_TEXTS) return;
    const { definition } = now.manifest as { definition: TaskDefinition };
    const answers = [
      await this.answers(task, version, items, definition),
      await this.answers(task, before.version, items, definition),
    ];
    const both = items.map((_, i) => i).filter((i) => answers.every((said) => said[i] !== null));
    if (both.length < LEAST_TEXTS) return;
    const [a, b] = answers.map((said) => both.map((i) => said[i]!));
    await this.agreements.keep({ task, version, before: before.version, texts: both.length, kappa: kappaOf(a!, b!) });
  }

  async stopping(task: string): Promise<Stopping> {
    const [curve, agreements] = await Promise.all([
      this.agreements.curve(task, RECENT),
      this.agreements.list(task, AGREEMENTS),
    ]);
    return stoppingOf(
      curve,
      agreements.map(({ kappa }) => kappa),
    );
  }

  /** By the present names of the labels; null where the version cannot score the text. */
  private async answers(
    task: string,
    version: number,
    items: Item[],
    definition: TaskDefinition,
  ): Promise<(string | null)[]> {
    const { model, release } = await this.activation.openVersion(task, version);
    try {
      const said: (string | null)[] = [];
      for (let start = 0; start < items.length; start += TEXTS_AT_ONCE) {
        const part = items.slice(start, start + TEXTS_AT_ONCE);
        for (const outcome of await this.engine.classify(model, { items: part, priority: 'background' })) {
          said.push(outcome.ok ? namedNow(definition, outcome.prediction.labels).sort().join('\n') : null);
        }
      }
      return said;
    } finally {
      release();
    }
  }
}
