/**
 * Examples whose label a run's models doubt come back as questions, with the label that they have; the answer confirms
 * or corrects it. Doubt is a guess: nothing changes until somebody answers, and what was confirmed is not asked again.
 */
import { Inject, Injectable } from '@nestjs/common';
import { DEFAULT_THRESHOLD } from '../inference/independent.js';
import { score, scoreIndependent } from '../inference/score.js';
import type { Member, Prediction } from '../inference/types.js';
import { readLabelIssues, type LabelIssue } from '../launch/run-folder.js';
import { AnswersRepository } from '../storage/answers.repository.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import type { ExampleRow } from '../storage/entities/example.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { Transactions, type Tx } from '../storage/transactions.js';
import type { TaskDefinition } from '../task/types.js';
import { sameLabels } from './answer-examples.js';
import { currentLabels } from './data-set.js';
import { groupNear } from './near-duplicates.js';
import { scoreOf } from './pool.js';

/** Of a run; more would keep labelers from new texts for long. */
const ASKED = 20;

@Injectable()
export class LabelIssues {
  constructor(
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(AnswersRepository) private readonly answers: AnswersRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
  ) {}

  /** Asks about the most doubtful of a run's folder; how many. Once more changes nothing. */
  async ask(taskName: string, version: number, folder: string): Promise<number> {
    const issues = await readLabelIssues(folder);
    if (issues.length === 0) return 0;
    return this.transactions.run(async (tx) => {
      await this.examples.lockTask(taskName, tx);
      const task = (await this.tasks.find(taskName, tx))!;
      const definition = task.definition as TaskDefinition;
      const keys = issues.map(({ itemKey }) => itemKey);
      const examples = new Map((await this.examples.findByKeys(taskName, keys, tx)).map((row) => [row.itemKey, row]));
      let asked = 0;
      for (const issue of issues) {
        if (asked === ASKED) break;
        const example = examples.get(issue.itemKey);
        // Forgotten or corrected since.
        if (!example || !sameLabels(currentLabels(definition, example), issue.labels)) continue;
        const predicted = predictionOf(definition, example, issue, { version, revision: task.revision });
        if (predicted && (await this.askOf(example, issue, predicted, tx))) asked += 1;
      }
      return asked;
    });
  }

  /** False where it was confirmed before, or is asked for another reason. */
  private async askOf(example: ExampleRow, issue: LabelIssue, prediction: Prediction, tx: Tx): Promise<boolean> {
    const { task, itemKey, labels, split } = example;
    let candidate = await this.candidates.findByKey(task, itemKey, tx);
    if (!candidate) {
      const { splitGroup, text, textPair, choices, fields } = example;
      const item = { itemKey, splitGroup, text, textPair, choices, fields };
      const [group] = groupNear([{ item, sketch: null }], []);
      const row = { ...item, ...scoreOf(itemKey, prediction), ...group!, split, audit: false, reservoirRank: null };
      await this.candidates.upsert(task, [row], tx);
      candidate = (await this.candidates.findByKey(task, itemKey, tx))!;
    }
    if (candidate.reason !== null) return candidate.reason === 'LABEL_ISSUE';
    const said = await this.answers.standing(candidate.id, tx);
    if (
      said.some(({ asked, labels: confirmed }) => asked === 'LABEL_ISSUE' && sameLabels(confirmed ?? labels, labels))
    ) {
      return false;
    }
    const { skipReason, answeredBy, answeredAt } = candidate;
    const known = { state: 'LABELLED', labels, skipReason, answeredBy, answeredAt } as const;
    await this.candidates.setAnswer(candidate.id, { ...known, reason: 'LABEL_ISSUE', priority: issue.doubt }, tx);
    return true;
  }
}

const OUT_OF_FOLD = { id: 'out-of-fold', weight: 1 } as Member;

/** Null where the distribution is not of the task's present labels. */
function predictionOf(
  definition: TaskDefinition,
  example: ExampleRow,
  { distribution }: LabelIssue,
  { version, revision }: { version: number; revision: number },
): Prediction | null {
  const { kind } = definition;
  const labels = kind === 'multiple-choice' ? (example.choices ?? []) : definition.labels.map(({ name }) => name);
  if (labels.length !== distribution.length || labels.length === 0) return null;
  const scored = [{ member: OUT_OF_FOLD, distribution }];
  const asIs = { temperature: 1, calibrated: false };
  const said =
    kind === 'multi-label'
      ? scoreIndependent(
          labels,
          scored,
          asIs,
          labels.map(() => DEFAULT_THRESHOLD),
        )
      : score(labels, scored, asIs);
  return { ...said, members: [], route: 'REVIEW', modelVersion: version, taskRevision: revision };
}
