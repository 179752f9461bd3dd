/**
 * The gate: challenger against champion on the same held-out rows, through the very bundles that would serve.
 * Invariants: no row took part in the training of either (dev rows only ever fitted a temperature, which does not change
 * which label is best); both answer by the policy that the task serves; rows whose label only one of the two knows are
 * left out and counted. Where a text may have several labels an answer is right as a whole set, and both are asked about
 * the labels that both know. Labels are by the task's present names, as the rows have them: both may have been trained
 * before a renaming.
 */
import { Inject, Injectable } from '@nestjs/common';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import { InferenceEngine } from '../inference/engine.js';
import type { Prediction } from '../inference/types.js';
import { ActivationService } from '../registry/activation.js';
import type { BundleManifest } from '../registry/manifest.js';
import type { ExampleRow } from '../storage/entities/example.js';
import type { ModelVersionRow } from '../storage/entities/model-version.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { TrainingTextsRepository } from '../storage/training-texts.repository.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import { dataSetDigest } from '../task/keys.js';
import type { Item, TaskDefinition } from '../task/types.js';
import { currentLabels, itemOf, namedNow, presentName } from './data-set.js';
import { confusionChanges, flipsOf, labelFigures } from './gate-differences.js';
import { compareFigures, isRight, type JudgedRow } from './gate-figures.js';
import { describeComparison, describeFirst } from './gate-report.js';
import { compare, pairedCounts, type GateVerdict, type PairedCounts } from './gate-statistics.js';
import { labelShift } from './guard-rules.js';
import { answerOf, OUT_OF_FOLD_NOTE, outOfFoldOf } from './out-of-fold.js';
import { CALIBRATION_ROWS } from './live-accuracy.js';
import { runFolder, trainedGroups, type TrainedGroups } from './run-folders.js';

export interface GateComparison {
  championVersion: number | null;
  verdict: GateVerdict;
  report: Record<string, unknown>;
}

/** A held-out row with its labels by their present names. */
interface HeldOutRow {
  example: ExampleRow;
  labels: string[];
}

/** What a version said of a row, by the labels' present names. */
interface Answer {
  labels: string[];
  confidence: number;
  probabilities: Map<string, number>;
}

interface HeldOut {
  rows: HeldOutRow[];
  /** Rows left out, by reason. */
  leftOut: { trainedOn: number; labelNotShared: number };
  /** False where texts that one of the two was trained on cannot be looked up any more. */
  trainingTextsKnown: boolean;
}

/** What a version takes on this machine, beside whatever else is at work. */
interface Cost {
  /** Of texts asked one at a time, from request to answer; null where there were none. */
  medianMs: number | null;
  p95Ms: number | null;
  /** Of its model hosts; null where they serve other versions too, or the system does not say. */
  hostBytes: number | null;
}

/** Of both versions on the same unlabelled texts of the task's traffic. */
export interface TrafficFigures {
  texts: number;
  /** Share of texts with the same answer; null without texts. */
  agreement: number | null;
  /** Jensen-Shannon distance between the shares of labels, in [0, 1]. */
  labelShift: number;
}

const NO_ROWS: PairedCounts = { bothRight: 0, onlyChallengerRight: 0, onlyChampionRight: 0, bothWrong: 0 };
/** No label's name: what a version that failed says is wrong, even of a text without labels. */
const NO_ANSWER = '';
/** Texts at once: a small share of the queue, in which requests go first. */
const TEXTS_AT_ONCE = 32;
const TIMED_TEXTS = 30;
const TRAFFIC_TEXTS = 300;
const LEAST_TRAFFIC_TEXTS = 50;
const OVERLOADED_PATIENCE_MS = 10 * 60_000;

@Injectable()
export class GateService {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(TrainingTextsRepository) private readonly texts: TrainingTextsRepository,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
  ) {}

  /** Against the version that is active now. Throws VERSION_NOT_FOUND, BUNDLE_INVALID. */
  async compare(taskName: string, version: number): Promise<GateComparison> {
    const task = await this.tasks.find(taskName);
    const challenger = await this.versions.find(taskName, version);
    if (!task || !challenger) throw new FewloopError('VERSION_NOT_FOUND', `${taskName} has no version ${version}`);
    const champion = task.activeVersion === null ? null : await this.versions.find(taskName, task.activeVersion);
    const definition = task.definition as TaskDefinition;
    const shared = sharedLabels(definition, champion ? [challenger, champion] : [challenger]);
    const heldOut = await this.heldOut(definition, challenger, champion, shared);
    const asked = [
      await this.answers(challenger, itemsOf(heldOut.rows), definition),
      ...(champion ? [await this.answers(champion, itemsOf(heldOut.rows), definition)] : []),
    ];
    const answers = asked.map((one) => one.answers);
    const answered = [...heldOut.rows.keys()].filter((i) => answers.every((given) => given[i] !== null));
    const splits = answered.map((i) => heldOut.rows[i]!.example.split);
    const [judged, before = null] = answers.map((given) =>
      answered.map((i) => judge(definition, shared, heldOut.rows[i]!, given[i]!)),
    );
    const right = judged!.map(isRight);
    const { margin } = definition.learning.promotion;
    const comparison = compare(before ? pairedCounts(before.map(isRight), right) : NO_ROWS, margin);
    // There is nothing that it could be worse than; a person decides all the same.
    const verdict = champion ? comparison.verdict : 'NOT_WORSE';
    const alone = { rows: right.length, right: right.filter(Boolean).length };
    const report = {
      statement: champion ? describeComparison(comparison, champion.version) : describeFirst(alone),
      ...comparison,
      verdict,
      ...compareFigures(before, judged!),
      calibration: right.length < CALIBRATION_ROWS ? 'INSUFFICIENT' : 'OK',
      byLabel: labelFigures(before, judged!, shared),
      ...(before && {
        confusionChanges: confusionChanges(before, judged!),
        flips: flipsOf(
          before,
          judged!,
          answered.map((i) => heldOut.rows[i]!.example.itemKey),
        ),
      }),
      traffic: champion && (await this.onTraffic(definition, challenger, champion)),
      cost: { champion: asked[1]?.cost ?? null, challenger: asked[0]!.cost },
      heldOutDigest: dataSetDigest(
        answered.map((i) => ({ itemKey: heldOut.rows[i]!.example.itemKey, labels: heldOut.rows[i]!.labels })),
      ),
      ...(champion ? {} : { challengerAlone: alone }),
      heldOut: {
        test: splits.filter((split) => split === 'test').length,
        dev: splits.filter((split) => split === 'dev').length,
        note: 'dev rows fitted the challenger’s temperature, which does not change its labels; neither trained on them',
        leftOut: { ...heldOut.leftOut, notAnswered: heldOut.rows.length - answered.length },
        trainingTextsKnown: heldOut.trainingTextsKnown,
      },
      labels: shared,
      policy: definition.serving.policy,
      outOfFold: await this.outOfFold(definition, challenger, champion),
      taskRevisions: { champion: champion?.taskRevision ?? null, challenger: challenger.taskRevision },
    };
    return { championVersion: champion?.version ?? null, verdict, report };
  }

  /** Beside the verdict, for tasks with too few held-out rows: see out-of-fold.ts for what it can say. */
  private async outOfFold(
    definition: TaskDefinition,
    challenger: ModelVersionRow,
    champion: ModelVersionRow | null,
  ): Promise<Record<string, unknown> | null> {
    const trainedBy = definitionOf(challenger);
    const folded = outOfFoldOf(challenger.report);
    if (!folded) return null;
    const trained = await this.groupsBehind(champion);
    if (!champion || !trained.complete) return { figures: folded.figures, comparison: null };
    const keys = folded.rows.map(({ itemKey }) => itemKey);
    const examples = new Map((await this.examples.findByKeys(champion.task, keys)).map((row) => [row.itemKey, row]));
    const { thresholds = {} } = challenger.manifest as Pick<BundleManifest, 'thresholds'>;
    const rows: HeldOutRow[] = [];
    const challengerAnswers: (string[] | null)[] = [];
    for (const { itemKey, labels, distribution } of folded.rows) {
      const example = examples.get(itemKey);
      if (!example || example.revokedAt || trained.groups.has(example.splitGroup)) continue;
      rows.push({ example, labels: namedNow(definition, labels) });
      const answer = answerOf(trainedBy, thresholds, example.choices, distribution);
      challengerAnswers.push(answer && namedNow(definition, answer));
    }
    const { answers: championAnswers } = await this.answers(champion, itemsOf(rows), definition);
    const right = (answers: (string[] | null | undefined)[]) =>
      rows.map(({ labels }, i) => isRight({ labels, answer: answers[i] ?? [NO_ANSWER] }));
    const counts = pairedCounts(right(championAnswers.map((answer) => answer?.labels)), right(challengerAnswers));
    return {
      figures: folded.figures,
      comparison: compare(counts, definition.learning.promotion.margin),
      note: OUT_OF_FOLD_NOTE,
    };
  }

  /** How far their answers to the same unlabelled texts are apart: what the guard expects of a swap. */
  private async onTraffic(
    definition: TaskDefinition,
    challenger: ModelVersionRow,
    champion: ModelVersionRow,
  ): Promise<TrafficFigures | null> {
    const items = (await this.texts.reservoir(challenger.task, TRAFFIC_TEXTS)).map(itemOf);
    if (items.length < LEAST_TRAFFIC_TEXTS) return null;
    const { answers: before } = await this.answers(champion, items, definition);
    const { answers: now } = await this.answers(challenger, items, definition);
    return trafficFigures(before, now);
  }

  private async heldOut(
    definition: TaskDefinition,
    challenger: ModelVersionRow,
    champion: ModelVersionRow | null,
    shared: string[],
  ): Promise<HeldOut> {
    const { task } = challenger;
    const seen = await Promise.all([challenger, champion].map((version) => this.groupsBehind(version)));
    const trained = new Set(seen.flatMap(({ groups }) => [...groups]));
    const leftOut = { trainedOn: 0, labelNotShared: 0 };
    const rows: HeldOutRow[] = [];
    const examples = [
      ...(await this.examples.listSplit(task, 'test')),
      ...(await this.examples.listSplit(task, 'dev')),
    ];
    for (const example of examples) {
      const labels = currentLabels(definition, example);
      if (trained.has(example.splitGroup)) leftOut.trainedOn += 1;
      else if (labels === null || (isExclusive(definition) && !shared.includes(labels[0]!)))
        leftOut.labelNotShared += 1;
      else rows.push({ example, labels });
    }
    return { rows, leftOut, trainingTextsKnown: seen.every(({ complete }) => complete) };
  }

  /** Split groups of a version's training texts; none for a version that no run made. */
  private async groupsBehind(version: ModelVersionRow | null): Promise<TrainedGroups> {
    if (!version?.runId) return { groups: new Set(), complete: true };
    return trainedGroups(path.join(this.config.dataDir, runFolder(version.task, version.runId)));
  }

  /** What the version says of each row, by present names; null where it failed. And what that takes here. */
  private async answers(
    version: ModelVersionRow,
    items: Item[],
    definition: TaskDefinition,
  ): Promise<{ answers: (Answer | null)[]; cost: Cost }> {
    const open = () => this.activation.openVersion(version.task, version.version);
    const { model, bytes, release } = await patiently(open);
    const classify = (some: Item[]) =>
      patiently(() => this.engine.classify(model, { items: some, priority: 'bulk', anew: true }));
    try {
      const answers: (Answer | null)[] = [];
      const times: number[] = [];
      for (const item of items.slice(0, TIMED_TEXTS)) {
        const startedAtMs = performance.now();
        await classify([item]);
        times.push(performance.now() - startedAtMs);
      }
      for (let start = 0; start < items.length; start += TEXTS_AT_ONCE) {
        const outcomes = await classify(items.slice(start, start + TEXTS_AT_ONCE));
        answers.push(...outcomes.map((outcome) => (outcome.ok ? readAnswer(definition, outcome.prediction) : null)));
      }
      return { answers, cost: { ...latencyOf(times), hostBytes: bytes() || null } };
    } finally {
      release();
    }
  }
}

/** A service whose queue or memory is full for now is no reason to fail a run: it waits its turn. */
async function patiently<T>(action: () => Promise<T>): Promise<T> {
  const giveUpAt = Date.now() + OVERLOADED_PATIENCE_MS;
  for (;;) {
    try {
      return await action();
    } catch (error) {
      const busy = error instanceof FewloopError && error.code === 'OVERLOADED';
      if (!busy || Date.now() > giveUpAt) throw error;
      await sleep(error.retryAfterMs ?? 1000);
    }
  }
}

/** Texts that one of the two failed on are left out. */
async function trafficFigures(before: (Answer | null)[], now: (Answer | null)[]): Promise<TrafficFigures> {
  const named = (answer: Answer) => answer.labels.toSorted().join('\n');
  const both = before.flatMap((one, i) => (one && now[i] ? [[named(one), named(now[i])] as const] : []));
  const counts = (side: 0 | 1) =>
    new Map(Object.entries(Object.groupBy(both, (pair) => pair[side])).map(([name, own]) => [name, own!.length]));
  const same = both.filter(([one, other]) => one === other).length;
  return {
    texts: both.length,
    agreement: both.length === 0 ? null : same / both.length,
    labelShift: (await labelShift(counts(0), counts(1))).shift,
  };
}

const itemsOf = (rows: HeldOutRow[]) => rows.map(({ example }) => itemOf(example));

function readAnswer(definition: TaskDefinition, { labels, confidence, distribution }: Prediction): Answer {
  const probabilities = new Map<string, number>();
  for (const { label, probability } of distribution) {
    const name = presentName(definition, label) ?? label;
    // Of labels that became one, the surer.
    probabilities.set(name, Math.max(probability, probabilities.get(name) ?? 0));
  }
  // A label that the task no longer has is an answer too: a wrong one.
  return { labels: namedNow(definition, labels), confidence, probabilities };
}

/** Of several labels only those count that both versions know; of one, a label that one does not know is an answer. */
function judge(definition: TaskDefinition, shared: string[], { labels }: HeldOutRow, said: Answer): JudgedRow {
  if (definition.kind !== 'multi-label') {
    const hit = isRight({ labels, answer: said.labels });
    const { labels: answer, confidence } = said;
    return { labels, answer, confidence, forecasts: [{ probability: confidence, hit }] };
  }
  return {
    labels: labels.filter((label) => shared.includes(label)),
    answer: said.labels.filter((label) => shared.includes(label)),
    confidence: said.confidence,
    forecasts: shared.map((label) => ({
      probability: said.probabilities.get(label) ?? 0,
      hit: labels.includes(label),
    })),
  };
}

/** The first, which may have waited for something, is left out where there are others. */
function latencyOf(times: number[]): Pick<Cost, 'medianMs' | 'p95Ms'> {
  const sorted = (times.length > 1 ? times.slice(1) : times).toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1] ?? null;
  return { medianMs: at(0.5), p95Ms: at(0.95) };
}

/** Whether the task has labels that exclude each other. */
function isExclusive({ kind, labels }: TaskDefinition): boolean {
  return kind !== 'multi-label' && labels.length > 0;
}

function definitionOf(version: ModelVersionRow): TaskDefinition {
  return (version.manifest as { definition: TaskDefinition }).definition;
}

/** Labels of the task that all the versions know. */
function sharedLabels(definition: TaskDefinition, versions: ModelVersionRow[]): string[] {
  const known = versions.map(
    (version) => new Set(definitionOf(version).labels.map(({ name }) => presentName(definition, name))),
  );
  return definition.labels.map(({ name }) => name).filter((name) => known.every((names) => names.has(name)));
}
