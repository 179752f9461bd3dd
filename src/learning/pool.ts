/**
 * The pool: a bounded set of candidates per task. Admission depends on the text and its prediction alone, so that a
 * text seen again changes nothing. Admitted are: what is routed to REVIEW, what is contested, the audit slice (drawn at
 * random, from all splits), the reservoir (a uniform sample of the train groups' texts, for priors and TAPT) and a
 * sample of the confident rest. The split is assigned here.
 *
 * Counting a pool and ordering it to evict cost more than admitting a batch: it is counted when it may be full by what
 * this process admitted, at least every few seconds (other processes admit too), and a large one is let grow somewhat
 * beyond its capacity before it is brought back to it.
 */
import { Inject, Injectable } from '@nestjs/common';
import type { Prediction } from '../inference/types.js';
import type { BundleManifest } from '../registry/manifest.js';
import { CandidatesRepository, type CandidateScore, type NewCandidate } from '../storage/candidates.repository.js';
import type { KeyedItem } from '../storage/entities/item-columns.js';
import { ErasuresRepository } from '../storage/erasures.repository.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { QuestionsRepository } from '../storage/questions.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import { fraction, splitGroup, splitOf } from '../task/keys.js';
import type { Item, Split, TaskDefinition } from '../task/types.js';
import { itemOf } from './data-set.js';
import { groupNear, LEADERS_A_BAND, sketchOf } from './near-duplicates.js';
import type { Disagreement } from './shadow-scoring.js';

export interface ScoredItem {
  item: KeyedItem;
  prediction: Prediction;
}

type Admission = Omit<NewCandidate, 'nearGroup' | 'bands'>;

export interface PoolStats {
  total: number;
  contested: number;
  awaitingReview: number;
  labelled: number;
  pseudoLabelled: number;
  /** Open candidates whose scores are of another version than the active one. */
  outdated: number;
}

export const RESERVOIR_SIZE = 2000;
/** Of each so many rows of capacity, so many more are let in before the pool is brought back to it. */
const SLACK = { per: 50_000, rows: 1_000 };
const COUNT_EVERY_MS = 5_000;
/** Of the texts that are compared in one go. Where each has all the leaders that it may have, that takes some 0.3 s. */
const PART_CHARACTERS = 20_000;
/** Share of confident, unanimous texts that is kept: self-training learns from them too. */
const CONFIDENT_SHARE = 0.1;

@Injectable()
export class PoolService {
  /** Task → rows that fit before the pool is to be counted again, and when it is at the latest. */
  readonly #room = new Map<string, { rows: number; capacity: number; until: number }>();

  constructor(
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(ErasuresRepository) private readonly erasures: ErasuresRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(QuestionsRepository) private readonly questions: QuestionsRepository,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
  ) {}

  /** In the caller's transaction where there is one: what is recorded as scored is in the pool, or neither is. */
  async admit(definition: TaskDefinition, scored: ScoredItem[], tx?: Tx): Promise<void> {
    if (scored.length === 0) return;
    if (tx) await this.admitWithin(definition, scored, tx);
    else await this.transactions.run((own) => this.admitWithin(definition, scored, own));
  }

  /**
   * Texts that two versions answer otherwise, as questions that come before what a strategy chooses, the surest of the
   * version on trial first. As strategies do it asks about no text of a dev or test group, of the audit slice, or that is
   * answered or asked already, and it brings back none that was forgotten. Returns how many it asks, at most so many.
   */
  async ask(taskName: string, disagreements: Disagreement[], most: number): Promise<number> {
    const definition = (await this.tasks.find(taskName))!.definition as TaskDefinition;
    const scored = disagreements.map(({ item, itemKey, prediction, challenger }) => {
      const { text, textPair = null, choices = null, fields = null } = item;
      const keyed = { itemKey, splitGroup: splitGroup(text), text, textPair, choices, fields };
      return { item: keyed, prediction, priority: challenger.confidence };
    });
    await this.transactions.run(async (tx) => {
      await this.candidates.lockPool(taskName, tx);
      const groups = scored.map(({ item }) => item.splitGroup);
      const splits = await this.examples.splitsOfGroups(taskName, groups, tx);
      const forgotten = await this.erasures.among(taskName, groups, tx);
      const known = await this.candidates.knownKeys(
        taskName,
        scored.map(({ item }) => item.itemKey),
        tx,
      );
      const rows = scored.flatMap(({ item, prediction }): Admission[] => {
        if (known.has(item.itemKey) || forgotten.has(item.splitGroup)) return [];
        const split = splits.get(item.splitGroup) ?? splitOf(item.splitGroup);
        const audit = fraction('audit', taskName, item.splitGroup) < definition.pool.auditRate;
        if (split !== 'train' || audit) return [];
        return [{ ...item, ...scoreOf(item.itemKey, prediction), split, audit, reservoirRank: null }];
      });
      if (rows.length === 0) return;
      await this.put(taskName, rows, tx);
      await this.bound(definition, rows.length, tx);
    });
    const keys = scored.toSorted((a, b) => b.priority - a.priority).map(({ item }) => item.itemKey);
    const chosen = (await this.questions.mayBeAsked(taskName, keys)).slice(0, most);
    const priorities = new Map(scored.map(({ item, priority }) => [item.itemKey, priority]));
    return this.candidates.askAbout(
      taskName,
      'CHALLENGER',
      chosen.map((itemKey) => ({ itemKey, priority: priorities.get(itemKey)! })),
    );
  }

  /**
   * Brings open candidates up to the model that answers now, some at a time; false where all are. Those it cannot score
   * keep the prediction they have, marked as looked at; where the model is to blame, `score` throws and none is marked.
   */
  async refresh(
    { task, version }: { task: string; version: number },
    limit: number,
    score: (items: Item[]) => Promise<(Prediction | Error)[]>,
  ): Promise<boolean> {
    const rows = await this.candidates.findStale(task, version, limit);
    if (rows.length === 0) return false;
    const predictions = await score(rows.map(itemOf));
    const scores = rows.map((row, i) => {
      const prediction = predictions[i]!;
      if (!(prediction instanceof Error)) return scoreOf(row.itemKey, prediction);
      return { ...scoreOf(row.itemKey, row.prediction as Prediction), modelVersion: version };
    });
    await this.candidates.updateScores(task, scores);
    return true;
  }

  async stats(task: string): Promise<PoolStats> {
    const active = (await this.tasks.find(task))?.activeVersion ?? null;
    const counts = await this.candidates.counts(task, active);
    const version = active === null ? null : await this.versions.find(task, active);
    const manifest = version?.manifest as BundleManifest | undefined;
    return { ...counts, pseudoLabelled: manifest?.trainingData?.pseudoLabelled ?? 0 };
  }

  private async admitWithin(definition: TaskDefinition, scored: ScoredItem[], tx: Tx): Promise<void> {
    const task = definition.name;
    await this.candidates.lockPool(task, tx);
    const groups = scored.map(({ item }) => item.splitGroup);
    const splits = await this.examples.splitsOfGroups(task, groups, tx);
    const bound = await this.candidates.reservoirBound(task, RESERVOIR_SIZE, tx);
    const rows = new Map<string, Admission>();
    for (const { item, prediction } of scored) {
      const split = splits.get(item.splitGroup) ?? splitOf(item.splitGroup);
      const row = admission(definition, item, prediction, split, bound ?? 1);
      if (row) rows.set(item.itemKey, row);
    }
    if (rows.size === 0) return;
    await this.put(task, [...rows.values()], tx);
    const ranked = [...rows.values()].some(({ reservoirRank }) => reservoirRank !== null);
    if (ranked) await this.candidates.trimReservoir(task, RESERVOIR_SIZE, tx);
    await this.bound(definition, rows.size, tx);
  }

  /** Part by part: in between others have their turn, and the server sees that the transaction is at work. */
  private async put(task: string, rows: Admission[], tx: Tx): Promise<void> {
    for (const part of partsOf(rows)) await this.candidates.upsert(task, await this.grouped(task, part, tx), tx);
  }

  /** With their groups of near-duplicates. */
  private async grouped(task: string, rows: Admission[], tx: Tx): Promise<NewCandidate[]> {
    const sketched = rows.map((item) => ({ item, sketch: sketchOf(task, item) }));
    const bands = [...new Set(sketched.flatMap(({ sketch }) => sketch?.bands ?? []))];
    const leaders = bands.length === 0 ? [] : await this.candidates.leaders(task, bands, LEADERS_A_BAND, tx);
    const groups = groupNear(sketched, leaders);
    return rows.map((row, i) => ({ ...row, ...groups[i]! }));
  }

  private async bound({ name: task, pool: { capacity } }: TaskDefinition, admitted: number, tx: Tx): Promise<void> {
    const known = this.#room.get(task);
    if (known && known.capacity === capacity && known.rows >= admitted && Date.now() < known.until) {
      known.rows -= admitted;
      return;
    }
    const most = capacity + Math.floor(capacity / SLACK.per) * SLACK.rows;
    const total = await this.candidates.count(task, tx);
    if (total > most) await this.candidates.evict(task, total - capacity, tx);
    const rows = most - (total > most ? capacity : total);
    this.#room.set(task, { rows, capacity, until: Date.now() + COUNT_EVERY_MS });
  }
}

/** Parts of about PART_CHARACTERS. */
function* partsOf(rows: Admission[]): Generator<Admission[]> {
  let part: Admission[] = [];
  let characters = 0;
  for (const row of rows) {
    if (part.length > 0 && characters + row.text.length > PART_CHARACTERS) {
      yield part;
      part = [];
      characters = 0;
    }
    part.push(row);
    characters += row.text.length;
  }
  if (part.length > 0) yield part;
}

/** Null where the text is not kept. `reservoirBound`: ranks beyond it are outside the reservoir. */
export function admission(
  definition: TaskDefinition,
  item: KeyedItem,
  prediction: Prediction,
  split: Split,
  reservoirBound: number,
): Admission | null {
  const { name, pool } = definition;
  const draw = fraction('audit', name, item.splitGroup);
  const audit = draw < pool.auditRate;
  const rank = fraction('reservoir', name, item.splitGroup);
  const reservoirRank = split === 'train' && rank <= reservoirBound ? rank : null;
  const contested = (prediction.disagreement?.dissenting ?? 0) > 0;
  const sampled = draw < pool.auditRate + CONFIDENT_SHARE * (1 - pool.auditRate);
  if (!audit && reservoirRank === null && prediction.route !== 'REVIEW' && !contested && !sampled) return null;
  return { ...item, ...scoreOf(item.itemKey, prediction), split, audit, reservoirRank };
}

/** What is stored of a prediction. */
export function scoreOf(itemKey: string, prediction: Prediction): CandidateScore {
  const { modelVersion, confidence, margin, entropy, disagreement, route } = prediction;
  const voteEntropy = disagreement?.voteEntropy ?? 0;
  const jensenShannon = disagreement?.jensenShannon ?? 0;
  const dissenting = disagreement?.dissenting ?? 0;
  const said = { confidence, margin, entropy, voteEntropy, jensenShannon, dissenting, route };
  return { itemKey, prediction, modelVersion, predictedLabel: prediction.label, ...said };
}
