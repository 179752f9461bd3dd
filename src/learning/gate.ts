/**
 * The gate: challenger against champion on the same held-out rows, through the very bundles that would serve.
 * Invariants: no row took part in the training of either (dev rows only ever fitted a temperature, which does not change
 * which label is best); both answer by the policy that the task serves; rows whose label only one of the two knows are
 * left out and counted.
 */
import { Inject, Injectable } from '@nestjs/common';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import { InferenceEngine, type Outcome } from '../inference/engine.js';
import type { ServedModel } from '../inference/types.js';
import { ActivationService } from '../registry/activation.js';
import type { ExampleRow } from '../storage/entities/example.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import type { Item, TaskDefinition } from '../task/types.js';
import { currentLabel, itemOf, presentName } from './data-set.js';
import { describeComparison, macroF1 } from './gate-report.js';
import { compare, pairedCounts, type GateVerdict } from './gate-statistics.js';
import { bestLabel, OUT_OF_FOLD_NOTE, outOfFoldOf } from './out-of-fold.js';
import { runFolder, trainedGroups } from './run-folders.js';

export interface GateComparison {
  championVersion: number | null;
  verdict: GateVerdict;
  report: Record<string, unknown>;
}

/** A held-out row with its label by the challenger's names. */
interface HeldOutRow {
  example: ExampleRow;
  label: string;
}

interface HeldOut {
  rows: HeldOutRow[];
  /** Rows left out, by reason. */
  leftOut: { trainedOn: number; labelNotShared: number };
  /** False where the run folder of one of the two is gone: then its unlabelled texts cannot be looked up. */
  trainingTextsKnown: boolean;
}

/** Texts at once: a small share of the queue, in which requests go first. */
const TEXTS_AT_ONCE = 32;
const OVERLOADED_PATIENCE_MS = 10 * 60_000;

@Injectable()
export class GateService {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
  ) {}

  /** Against the version that is active now. Throws VERSION_NOT_FOUND, BUNDLE_INVALID. */
  async compare(taskName: string, version: number): Promise<GateComparison> {
    const task = await this.tasks.find(taskName);
    const challenger = await this.versions.find(taskName, version);
    if (!task || !challenger) throw new FewloopError('VERSION_NOT_FOUND', `${taskName} has no version ${version}`);
    const champion = task.activeVersion === null ? null : await this.versions.find(taskName, task.activeVersion);
    const definition = definitionOf(challenger);
    const heldOut = await this.heldOut(challenger, champion);
    const [challengerAnswers, championAnswers] = [
      await this.answers(challenger, heldOut.rows, definition),
      champion ? await this.answers(champion, heldOut.rows, definition) : heldOut.rows.map(() => null),
    ];
    const answered = heldOut.rows
      .map(({ example, label }, i) => ({ split: example.split, label, by: [championAnswers[i], challengerAnswers[i]] }))
      .filter(({ by }) => by.every((answer) => typeof answer === 'string'));
    const right = (who: 0 | 1) => answered.map(({ by, label }) => by[who] === label);
    const margin = (task.definition as TaskDefinition).learning.promotion.margin;
    const comparison = compare(pairedCounts(right(0), right(1)), margin);
    const labels = answered.map(({ label }) => label);
    const report = {
      statement: describeComparison(comparison, champion?.version ?? null),
      ...comparison,
      macroF1: {
        champion: macroF1(
          labels,
          answered.map(({ by }) => String(by[0])),
        ),
        challenger: macroF1(
          labels,
          answered.map(({ by }) => String(by[1])),
        ),
      },
      heldOut: {
        test: answered.filter(({ split }) => split === 'test').length,
        dev: answered.filter(({ split }) => split === 'dev').length,
        note: 'dev rows fitted the challenger’s temperature, which does not change its labels; neither trained on them',
        leftOut: { ...heldOut.leftOut, notAnswered: heldOut.rows.length - answered.length },
        trainingTextsKnown: heldOut.trainingTextsKnown,
      },
      labels: sharedLabels(challenger, champion),
      outOfFold: await this.outOfFold(challenger, champion, margin),
      taskRevisions: { champion: champion?.taskRevision ?? null, challenger: challenger.taskRevision },
    };
    return { championVersion: champion?.version ?? null, verdict: comparison.verdict, report };
  }

  /** Beside the verdict, for tasks with too few held-out rows: see out-of-fold.ts for what it can say. */
  private async outOfFold(
    challenger: ModelVersionRow,
    champion: ModelVersionRow | null,
    margin: number,
  ): Promise<Record<string, unknown> | null> {
    const definition = definitionOf(challenger);
    const folded = outOfFoldOf(challenger.report);
    if (!folded) return null;
    const trained = (await this.groupsBehind(champion)) ?? null;
    if (!champion || !trained) return { figures: folded.figures, comparison: null };
    const keys = folded.rows.map(({ itemKey }) => itemKey);
    const examples = new Map((await this.examples.findByKeys(champion.task, keys)).map((row) => [row.itemKey, row]));
    const rows: HeldOutRow[] = [];
    const challengerAnswers: (string | null)[] = [];
    for (const { itemKey, label, distribution } of folded.rows) {
      const example = examples.get(itemKey);
      if (!example || trained.has(example.splitGroup)) continue;
      rows.push({ example, label });
      challengerAnswers.push(bestLabel(definition, example.choices, distribution));
    }
    const championAnswers = await this.answers(champion, rows, definition);
    const right = (answers: (string | null)[]) => rows.map(({ label }, i) => answers[i] === label);
    const counts = pairedCounts(right(championAnswers), right(challengerAnswers));
    return { figures: folded.figures, comparison: compare(counts, margin), note: OUT_OF_FOLD_NOTE };
  }

  private async heldOut(challenger: ModelVersionRow, champion: ModelVersionRow | null): Promise<HeldOut> {
    const { task } = challenger;
    const seen = await Promise.all([challenger, champion].map((version) => this.groupsBehind(version)));
    const trained = new Set(seen.flatMap((groups) => [...(groups ?? [])]));
    const shared = new Set(sharedLabels(challenger, champion));
    const definition = definitionOf(challenger);
    const leftOut = { trainedOn: 0, labelNotShared: 0 };
    const rows: HeldOutRow[] = [];
    const examples = [
      ...(await this.examples.listSplit(task, 'test')),
      ...(await this.examples.listSplit(task, 'dev')),
    ];
    for (const example of examples) {
      const label = currentLabel(definition, example);
      if (trained.has(example.splitGroup)) leftOut.trainedOn += 1;
      else if (label === null || (definition.labels.length > 0 && !shared.has(label))) leftOut.labelNotShared += 1;
      else rows.push({ example, label });
    }
    return { rows, leftOut, trainingTextsKnown: seen.every((groups) => groups !== null) };
  }

  /** Split groups of a version's training texts; none for a version that no run made. */
  private groupsBehind(version: ModelVersionRow | null): Promise<Set<string> | null> {
    if (!version?.runId) return Promise.resolve(new Set());
    return trainedGroups(path.join(this.config.dataDir, runFolder(version.task, version.runId)));
  }

  /** Each row's label, by the challenger's names; null where the version gave none. */
  private async answers(
    version: ModelVersionRow,
    rows: HeldOutRow[],
    definition: TaskDefinition,
  ): Promise<(string | null)[]> {
    const { model, release } = await this.activation.openVersion(version.task, version.version);
    try {
      const answers: (string | null)[] = [];
      for (let start = 0; start < rows.length; start += TEXTS_AT_ONCE) {
        const items = rows.slice(start, start + TEXTS_AT_ONCE).map(({ example }) => itemOf(example));
        const outcomes = await this.classify(model, items);
        for (const outcome of outcomes) {
          const label = outcome.ok ? outcome.prediction.label : null;
          const named =
            definition.kind === 'multiple-choice' || label === null ? label : presentName(definition, label);
          // A label that the challenger no longer has is an answer too: a wrong one.
          answers.push(named ?? label);
        }
      }
      return answers;
    } finally {
      release();
    }
  }

  /** A busy service is no reason to fail a run: it waits its turn. */
  private async classify(model: ServedModel, items: Item[]): Promise<Outcome[]> {
    const giveUpAt = Date.now() + OVERLOADED_PATIENCE_MS;
    for (;;) {
      try {
        return await this.engine.classify(model, { items, priority: 'bulk' });
      } catch (error) {
        const busy = error instanceof FewloopError && error.code === 'OVERLOADED';
        if (!busy || Date.now() > giveUpAt) throw error;
        await sleep(error.retryAfterMs ?? 1000);
      }
    }
  }
}

function definitionOf(version: ModelVersionRow): TaskDefinition {
  return (version.manifest as { definition: TaskDefinition }).definition;
}

/** By the challenger's names. */
function sharedLabels(challenger: ModelVersionRow, champion: ModelVersionRow | null): string[] {
  const definition = definitionOf(challenger);
  const names = definition.labels.map(({ name }) => name);
  if (!champion) return names;
  const known = new Set(definitionOf(champion).labels.map(({ name }) => presentName(definition, name)));
  return names.filter((name) => known.has(name));
}
