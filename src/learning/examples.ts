/**
 * Labelled texts. Invariants: all examples of a split group are in one split; a split, once given, does not change
 * (a text that was trained on would otherwise judge the model that was trained on it).
 */
import { Inject, Injectable } from '@nestjs/common';
import { badInput } from '../common/errors.js';
import { Config } from '../config/config.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import type { SplitValue } from '../storage/entities/item-columns.js';
import type { ExampleRow } from '../storage/entities/example.js';
import { ExamplesRepository, type NewExample } from '../storage/examples.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import { splitOf } from '../task/keys.js';
import type { TaskDefinition } from '../task/types.js';
import { sameLabels } from './answer-examples.js';
import { LearningEvents } from './events.js';
import { checkedLabels, keyedItem, takeEach, type ItemInput, type Refusal } from './intake.js';
import { TaskService } from './task-service.js';

export interface ExampleInput extends ItemInput {
  labels: string[];
  /** Absent: by the stable hash of the normalised text, or the one that the text has already. */
  split?: SplitValue | null;
}

export interface ImportResult {
  added: number;
  updated: number;
  unchanged: number;
  rejected: Refusal[];
}

export interface ExampleStats {
  train: number;
  dev: number;
  test: number;
  /** Of sources that are no longer trusted; not counted otherwise. */
  revoked: number;
  byLabel: Record<string, number>;
}

type CheckedExample = Omit<NewExample, 'split'> & { asked: SplitValue | null; index: number };

const SPLITS: readonly unknown[] = ['train', 'dev', 'test'];

@Injectable()
export class ExampleService {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(TasksRepository) private readonly taskRows: TasksRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(LearningEvents) private readonly events: LearningEvents,
  ) {}

  /** Takes what it can and says of the rest why not. Throws TASK_NOT_FOUND. */
  async import(task: string, inputs: ExampleInput[], by: string): Promise<ImportResult> {
    await this.tasks.get(task);
    const result = await this.transactions.run(async (tx) => {
      await this.examples.lockTask(task, tx);
      const definition = (await this.taskRows.find(task, tx))!.definition as TaskDefinition;
      const { taken, refused } = takeEach(inputs, (input, index): CheckedExample => {
        const keyed = keyedItem(definition, input, this.config);
        const labels = checkedLabels(definition, keyed, input.labels);
        const asked = input.split ?? null;
        if (asked !== null && !SPLITS.includes(asked)) throw badInput('split', 'must be train, dev or test');
        return { ...keyed, task, labels, origin: 'IMPORT', answeredBy: by, asked, index };
      });
      const stored = await this.store(task, taken, tx);
      return { ...stored, rejected: [...refused, ...stored.rejected].sort((a, b) => a.index - b.index) };
    });
    if (result.added + result.updated > 0) this.events.examplesChanged(task);
    return result;
  }

  async stats(task: string): Promise<ExampleStats> {
    const bySplit = await this.examples.countBySplit(task);
    const byLabel = new Map<string, number>();
    for (const { label, count } of await this.examples.labelCounts(task)) {
      byLabel.set(label, (byLabel.get(label) ?? 0) + count);
    }
    return { ...bySplit, byLabel: Object.fromEntries(byLabel), revoked: await this.examples.countRevoked(task) };
  }

  private async store(task: string, checked: CheckedExample[], tx: Tx): Promise<ImportResult> {
    const keys = checked.map(({ itemKey }) => itemKey);
    const known = new Map((await this.examples.findByKeys(task, keys, tx)).map((row) => [row.itemKey, row]));
    const groups = checked.map(({ splitGroup }) => splitGroup);
    const splits = await this.examples.splitsOfGroups(task, groups, tx);
    const seen = new Map<string, CheckedExample>();
    const added: NewExample[] = [];
    const changed: { row: ExampleRow; labels: string[]; answeredBy: string | null }[] = [];
    let unchanged = 0;

    const { refused } = takeEach(checked, (example) => {
      const { asked, index: _, ...rest } = example;
      const split = splits.get(rest.splitGroup) ?? asked ?? splitOf(rest.splitGroup);
      if (asked !== null && asked !== split) {
        throw badInput('split', `this text is in ${split} already, and a text does not change its split`);
      }
      const twin = seen.get(rest.itemKey);
      if (twin && !sameLabels(twin.labels, rest.labels)) {
        // No place: what is an index here may be any line of a file.
        const others = twin.labels.map((label) => `"${label.slice(0, 100)}"`).join(', ');
        throw badInput('labels', `the same text stands before it with ${others || 'no labels'}`);
      }
      seen.set(rest.itemKey, example);
      splits.set(rest.splitGroup, split);
      const row = known.get(rest.itemKey);
      if (twin || (row && !row.revokedAt && sameLabels(row.labels, rest.labels))) unchanged += 1;
      else if (row) changed.push({ row, labels: rest.labels, answeredBy: rest.answeredBy });
      else added.push({ ...rest, split });
    });

    await this.examples.insert(added, tx);
    for (const { row, labels, answeredBy } of changed) {
      // The origin stays: the text was drawn at random. Live accuracy goes on with what was answered then. The label is
      // the importer's, to be revoked with theirs.
      await this.examples.setLabels(row.id, labels, row.origin, { answeredBy, strategy: null }, tx);
    }
    await this.candidates.setGroupSplits(task, new Map(added.map((row) => [row.splitGroup, row.split])), tx);
    const rejected = refused.map((refusal) => ({ ...refusal, index: checked[refusal.index]!.index }));
    return { added: added.length, updated: changed.length, unchanged, rejected };
  }
}
