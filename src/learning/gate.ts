/**
 * The gate: challenger against champion on the same held-out rows, through the very bundles that would serve.
 * Invariants: no row took part in the training of either (dev rows only ever fitted a temperature, which does not change
 * which label is best); both answer by the policy that the task serves; rows whose label only one of the two knows are
 * left out and counted. Where a text may have several labels an answer is right as a whole set, and both are asked about
 * the labels that both know.
 */
import { Inject, Injectable } from '@nestjs/common';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import { InferenceEngine, type Outcome } from '../inference/engine.js';
import type { Prediction, ServedModel } from '../inference/types.js';
import { ActivationService } from '../registry/activation.js';
import type { BundleManifest } from '../registry/manifest.js';
import type { ExampleRow } from '../storage/entities/example.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import type { Item, TaskDefinition } from '../task/types.js';
import { currentLabels, itemOf, presentName } from './data-set.js';
import { compareFigures, isRight, type JudgedRow } from './gate-figures.js';
import { describeComparison, describeFirst } from './gate-report.js';
import { compare, pairedCounts, type GateVerdict, type PairedCounts } from './gate-statistics.js';
import { answerOf, OUT_OF_FOLD_NOTE, outOfFoldOf } from './out-of-fold.js';
import { runFolder, trainedGroups } from './run-folders.js';

export interface GateComparison {
  championVersion: number | null;
  verdict: GateVerdict;
  report: Record<string, unknown>;
}

/** A held-out row with its labels by the challenger's names. */
interface HeldOutRow {
  example: ExampleRow;
  labels: string[];
}

/** What a version said of a row, by the challenger's names. */
interface Answer {
  labels: string[];
  confidence: number;
  probabilities: Map<string, number>;
}

interface HeldOut {
  rows: HeldOutRow[];
  /** Rows left out, by reason. */
  leftOut: { trainedOn: number; labelNotShared: number };
  /** False where the run folder of one of the two is gone: then its unlabelled texts cannot be looked up. */
  trainingTextsKnown: boolean;
}

const NO_ROWS: PairedCounts = { bothRight: 0, onlyChallengerRight: 0, onlyChampionRight: 0, bothWrong: 0 };
/** No label's name: what a version that failed says is wrong, even of a text without labels. */
const NO_ANSWER = '';
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
    const answers = [
      await this.answers(challenger, heldOut.rows, definition),
      ...(champion ? [await this.answers(champion, heldOut.rows, definition)] : []),
    ];
    const shared = sharedLabels(challenger, champion);
    const answered = [...heldOut.rows.keys()].filter((i) => answers.every((given) => given[i] !== null));
    const splits = answered.map((i) => heldOut.rows[i]!.example.split);
    const [judged, before = null] = answers.map((given) =>
      answered.map((i) => judge(definition, shared, heldOut.rows[i]!, given[i]!)),
    );
    const right = judged!.map(isRight);
    const margin = (task.definition as TaskDefinition).learning.promotion.margin;
    const comparison = compare(before ? pairedCounts(before.map(isRight), right) : NO_ROWS, margin);
    // There is nothing that it could be worse than; a person decides all the same.
    const verdict = champion ? comparison.verdict : 'NOT_WORSE';
    const alone = { rows: right.length, right: right.filter(Boolean).length };
    const report = {
      statement: champion ? describeComparison(comparison, champion.version) : describeFirst(alone),
      ...comparison,
      verdict,
      ...compareFigures(before, judged!),
      ...(champion ? {} : { challengerAlone: alone }),
      heldOut: {
        test: splits.filter((split) => split === 'test').length,
        dev: splits.filter((split) => split === 'dev').length,
        note: 'dev rows fitted the challenger’s temperature, which does not change its labels; neither trained on them',
        leftOut: { ...heldOut.leftOut, notAnswered: heldOut.rows.length - answered.length },
        trainingTextsKnown: heldOut.trainingTextsKnown,
      },
      labels: shared,
      outOfFold: await this.outOfFold(challenger, champion, margin),
      taskRevisions: { champion: champion?.taskRevision ?? null, challenger: challenger.taskRevision },
    };
    return { championVersion: champion?.version ?? null, verdict, report };
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
    const { thresholds = {} } = challenger.manifest as Pick<BundleManifest, 'thresholds'>;
    const rows: HeldOutRow[] = [];
    const challengerAnswers: (string[] | null)[] = [];
    for (const { itemKey, labels, distribution } of folded.rows) {
      const example = examples.get(itemKey);
      if (!example || example.revokedAt || trained.has(example.splitGroup)) continue;
      rows.push({ example, labels });
      challengerAnswers.push(answerOf(definition, thresholds, example.choices, distribution));
    }
    const championAnswers = await this.answers(champion, rows, definition);
    const right = (answers: (string[] | null | undefined)[]) =>
      rows.map(({ labels }, i) => isRight({ labels, answer: answers[i] ?? [NO_ANSWER] }));
    const counts = pairedCounts(right(championAnswers.map((answer) => answer?.labels)), right(challengerAnswers));
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
      const labels = currentLabels(definition, example);
      if (trained.has(example.splitGroup)) leftOut.trainedOn += 1;
      else if (labels === null || (isExclusive(definition) && !shared.has(labels[0]!))) leftOut.labelNotShared += 1;
      else rows.push({ example, labels });
    }
    return { rows, leftOut, trainingTextsKnown: seen.every((groups) => groups !== null) };
  }

  /** Split groups of a version's training texts; none for a version that no run made. */
  private groupsBehind(version: ModelVersionRow | null): Promise<Set<string> | null> {
    if (!version?.runId) return Promise.resolve(new Set());
    return trainedGroups(path.join(this.config.dataDir, runFolder(version.task, version.runId)));
  }

  /** What the version says of each row, by the challenger's names; null where it failed. */
  private async answers(
    version: ModelVersionRow,
    rows: HeldOutRow[],
    definition: TaskDefinition,
  ): Promise<(Answer | null)[]> {
    const { model, release } = await this.activation.openVersion(version.task, version.version);
    try {
      const answers: (Answer | null)[] = [];
      for (let start = 0; start < rows.length; start += TEXTS_AT_ONCE) {
        const items = rows.slice(start, start + TEXTS_AT_ONCE).map(({ example }) => itemOf(example));
        const outcomes = await this.classify(model, items);
        answers.push(...outcomes.map((outcome) => (outcome.ok ? readAnswer(definition, outcome.prediction) : null)));
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

function readAnswer(definition: TaskDefinition, { labels, confidence, distribution }: Prediction): Answer {
  // A label that the challenger no longer has is an answer too: a wrong one.
  const named = (label: string) =>
    definition.kind === 'multiple-choice' ? label : (presentName(definition, label) ?? label);
  return {
    labels: labels.map(named),
    confidence,
    probabilities: new Map(distribution.map(({ label, probability }) => [named(label), probability])),
  };
}

/** Of several labels only those count that both versions know; of one, a label that one does not know is an answer. */
function judge(definition: TaskDefinition, shared: string[], { labels }: HeldOutRow, said: Answer): JudgedRow {
  if (definition.kind !== 'multi-label') {
    const hit = isRight({ labels, answer: said.labels });
    return { labels, answer: said.labels, forecasts: [{ probability: said.confidence, hit }] };
  }
  return {
    labels: labels.filter((label) => shared.includes(label)),
    answer: said.labels.filter((label) => shared.includes(label)),
    forecasts: shared.map((label) => ({
      probability: said.probabilities.get(label) ?? 0,
      hit: labels.includes(label),
    })),
  };
}

/** Whether the task has labels that exclude each other. */
function isExclusive({ kind, labels }: TaskDefinition): boolean {
  return kind !== 'multi-label' && labels.length > 0;
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
