/**
 * What a run trains on. Pure.
 * Invariants (the leakage test holds them): a text whose split group occurs in dev or test, as an example or as a
 * candidate, is in no train row, no unlabelled row and no prior, nor is a near-duplicate of a held-out example that was
 * found as one; rows of the test split are not written at all; dev rows are written for the temperature and the report,
 * never for training.
 */
import type { LabelledRow, RunData, UnlabelledRow } from '../launch/run-folder.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import type { ExampleRow } from '../storage/entities/example.js';
import type { Item, TaskDefinition } from '../task/types.js';

/** Enough for self-training and TAPT within a run's minutes. */
const UNLABELLED_LIMIT = 3000;
/** Under that many audit answers the prior stays uniform. */
const PRIOR_MIN_ANSWERS = 20;

type StoredItem = Pick<ExampleRow, 'text' | 'textPair' | 'choices' | 'fields'>;
export type DataExample = StoredItem &
  Pick<ExampleRow, 'itemKey' | 'splitGroup' | 'labels' | 'split' | 'origin'> &
  Partial<Pick<ExampleRow, 'nearGroup' | 'revokedAt'>>;
export type DataCandidate = StoredItem &
  Pick<CandidateRow, 'itemKey' | 'splitGroup' | 'split' | 'state' | 'reservoirRank'> &
  Partial<Pick<CandidateRow, 'nearGroup'>>;

export interface TrainingData extends RunData {
  /** Examples whose label the task no longer has. */
  retired: number;
  /** In label order; null: uniform. */
  prior: number[] | null;
}

/** How many unlabelled texts a run gets. */
export function unlabelledLimit({ learning }: TaskDefinition): number {
  return learning.unlabelled ?? UNLABELLED_LIMIT;
}

export function trainingData(
  definition: TaskDefinition,
  examples: readonly DataExample[],
  candidates: readonly DataCandidate[],
): TrainingData {
  const heldOut = new Set<string>();
  for (const row of [...examples, ...candidates]) if (row.split !== 'train') heldOut.add(row.splitGroup);
  const nearHeldOut = new Set<string>();
  for (const { split, nearGroup } of examples) if (split !== 'train' && nearGroup) nearHeldOut.add(nearGroup);
  const isHeldOut = ({ splitGroup, nearGroup }: { splitGroup: string; nearGroup?: string | null }): boolean =>
    heldOut.has(splitGroup) || nearHeldOut.has(nearGroup ?? '');
  const labelled: LabelledRow[] = [];
  let retired = 0;
  for (const example of examples) {
    // Its source is no longer trusted; its group stays where it is.
    if (example.split === 'test' || example.revokedAt) continue;
    // A text imported once as train and once as dev is dev's.
    if (example.split === 'train' && isHeldOut(example)) continue;
    const labels = currentLabels(definition, example);
    if (labels === null) retired += 1;
    else labelled.push({ ...keyed(example), ...named(definition, labels), split: example.split });
  }
  const known = new Set(examples.map(({ splitGroup }) => splitGroup));
  const unlabelled = unlabelledRows(
    candidates.filter((candidate) => !isHeldOut(candidate) && !known.has(candidate.splitGroup)),
    unlabelledLimit(definition),
  );
  const prior = estimatedPrior(
    definition,
    examples.filter((example) => !isHeldOut(example)),
  );
  return { labelled, unlabelled, retired, prior };
}

/**
 * The example's labels by the task's present names; null where its label was removed. Of several labels those that were
 * removed are no longer asked about, and the text is an example of the others still, or of none.
 */
export function currentLabels(
  definition: TaskDefinition,
  example: Pick<DataExample, 'labels' | 'choices'>,
): string[] | null {
  if (definition.kind === 'multi-label') {
    const names = new Set(example.labels.map((name) => presentName(definition, name)));
    return definition.labels.map(({ name }) => name).filter((name) => names.has(name));
  }
  const [given] = example.labels;
  if (given === undefined) return null;
  if (definition.kind === 'multiple-choice') return example.choices?.includes(given) ? [given] : null;
  const name = presentName(definition, given);
  return name === null ? null : [name];
}

/** A label by its present name, whether it is given by that or by an earlier one. */
export function presentName(definition: TaskDefinition, name: string): string | null {
  const { labels } = definition;
  const label = labels.find((one) => one.name === name) ?? labels.find(({ was }) => was.includes(name));
  return label?.name ?? null;
}

/** An answer by its labels' present names, each once; a label that the task no longer has keeps its own. */
export function namedNow(definition: TaskDefinition, labels: readonly string[]): string[] {
  if (definition.kind === 'multiple-choice') return [...labels];
  return [...new Set(labels.map((label) => presentName(definition, label) ?? label))];
}

export function itemOf(row: StoredItem): Item {
  return {
    text: row.text,
    ...(row.textPair === null ? {} : { textPair: row.textPair }),
    ...(row.choices === null ? {} : { choices: row.choices }),
    ...(row.fields === null ? {} : { fields: row.fields }),
  };
}

/** The reservoir first, a uniform sample, marked; then the pool in an order that says nothing of the texts. */
function unlabelledRows(candidates: readonly DataCandidate[], limit: number): UnlabelledRow[] {
  const open = candidates.filter(({ state }) => state !== 'LABELLED');
  const rank = ({ reservoirRank }: DataCandidate) => reservoirRank ?? 1;
  open.sort((a, b) => rank(a) - rank(b) || (a.itemKey < b.itemKey ? -1 : 1));
  const groups = new Set<string>();
  const rows: UnlabelledRow[] = [];
  for (const candidate of open) {
    if (rows.length === limit) break;
    if (groups.has(candidate.splitGroup)) continue;
    groups.add(candidate.splitGroup);
    rows.push({ ...keyed(candidate), ...(candidate.reservoirRank !== null && { reservoir: true }) });
  }
  return rows;
}

function named({ kind }: TaskDefinition, labels: string[]): Pick<LabelledRow, 'label' | 'labels'> {
  return kind === 'multi-label' ? { labels } : { label: labels[0]! };
}

/**
 * Shares of the audit answers, the only unbiased ones, with one more answer a label (Laplace). Labels that are choices,
 * or do not exclude each other, have no shares of one.
 */
function estimatedPrior(definition: TaskDefinition, examples: readonly DataExample[]): number[] | null {
  const { kind, learning } = definition;
  if (learning.prior !== 'estimated' || kind === 'multiple-choice' || kind === 'multi-label') return null;
  const answers = examples
    .filter(({ origin, revokedAt }) => origin === 'AUDIT' && !revokedAt)
    .flatMap((example) => currentLabels(definition, example) ?? []);
  const counts = definition.labels.map(({ name }) => answers.filter((answer) => answer === name).length);
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total < PRIOR_MIN_ANSWERS) return null;
  return counts.map((count) => (count + 1) / (total + counts.length));
}

function keyed(row: StoredItem & { itemKey: string; splitGroup: string }) {
  return { itemKey: row.itemKey, splitGroup: row.splitGroup, ...itemOf(row) };
}
