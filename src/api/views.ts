/** Rows of the services as the schema's types. */
import type { Prediction } from '../inference/types.js';
import type { LintFinding } from '../task/lint.js';

type Named<T> = T & Record<string, unknown>;

interface VersionRow {
  task: string;
  version: number;
  state: string;
  digest: string;
  manifest: object;
  report: object;
  createdAt: Date;
  activatedAt: Date | null;
}

export function versionView(row: VersionRow) {
  const { task, version, state, digest, manifest, report, createdAt, activatedAt } = row;
  const { members, precisions = [] } = manifest as { members: object[]; precisions?: object[] };
  return { task, version, state, digest, members, precisions, report, createdAt, activatedAt };
}

export interface TaskParent {
  name: string;
  definition: object;
  activeVersion: number | null;
}

/** The parent of the field resolvers, which overwrite `activeVersion`. */
export function taskView(row: TaskParent & { kind: string; revision: number }) {
  const { labels } = row.definition as { labels: { name: string }[] };
  const { name, revision, definition, activeVersion } = row;
  return {
    name,
    kind: enumName(row.kind),
    labels: labels.map((label) => label.name),
    definition,
    revision,
    activeVersion,
  };
}

export function findingView({ severity, field, message }: LintFinding) {
  return { severity: enumName(severity), field, message };
}

export function predictionView(prediction: Prediction, id: string | null = null, members = false) {
  return { ...prediction, id, members: members ? prediction.members : null };
}

interface CandidateParent {
  id: string;
  text: string;
  textPair: string | null;
  choices: string[] | null;
  fields: object | null;
  prediction: object;
  receivedAt: Date;
}

interface QuestionParent extends CandidateParent {
  audit: boolean;
  reason: string | null;
  priority: number;
  labels: string[] | null;
  duplicates: number;
}

export function questionView(row: QuestionParent) {
  const { id, text, textPair, choices, fields, receivedAt, priority, duplicates, labels } = row;
  return {
    id,
    text,
    textPair,
    choices,
    fields,
    receivedAt,
    priority,
    duplicates,
    prediction: predictionView(row.prediction as Prediction),
    reason: row.reason ?? (row.audit ? 'AUDIT' : 'STRATEGY'),
    // Of a second answer, what the first one said would sway it.
    presentLabels: row.reason === 'LABEL_ISSUE' ? labels : null,
  };
}

export function exampleView(
  row: Omit<CandidateParent, 'id' | 'prediction' | 'receivedAt'> & { labels: string[]; split: string },
) {
  const { text, textPair, choices, fields, labels } = row;
  return { text, textPair, choices, fields, labels, split: row.split.toUpperCase() };
}

/** GraphQL gives null where the services expect nothing. */
export function withoutNulls<T extends object>(input: Named<T>): T {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== null && value !== undefined)) as T;
}

/** `single-label` ↔ `SINGLE_LABEL` */
function enumName(name: string): string {
  return name.toUpperCase().replaceAll('-', '_');
}
