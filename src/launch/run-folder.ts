/**
 * The run folder: the whole agreement between the service and the trainer (CONTRACT, "Run folder").
 * The service writes run.json and the data; the trainer writes progress.jsonl, bundle/ and, last, result.json.
 * Invariants: a folder belongs to one run; its data is written once, so that a resumed run trains on what it began
 * with; run.json comes last of what the service writes, so a folder that has it is whole.
 * May import: task.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';

import type { Item, Split, TaskDefinition } from '../task/types.js';

const RUN_FORMAT_VERSION = 1;

export interface RunSettings {
  formatVersion: typeof RUN_FORMAT_VERSION;
  runId: string;
  task: string;
  version: number;
  taskRevision: number;
  definitionDigest: string;
  definition: TaskDefinition;
  seed: number;
  baseModel: { name: string; folder: string; digest: string };
  budgetSeconds: number;
  threads: number;
  /** In the order of the definition's labels; null: uniform. */
  prior: number[] | null;
}

interface KeyedRow extends Item {
  itemKey: string;
  splitGroup: string;
}

export interface UnlabelledRow extends KeyedRow {
  /** Of the uniform sample of the task's traffic: what the trainer matches offsets on. The others were chosen. */
  reservoir?: true;
}

export interface LabelledRow extends KeyedRow {
  /** Of every kind but multi-label. */
  label?: string;
  /** Multi-label: in the definition's order, none where the text has none. */
  labels?: string[];
  split: Exclude<Split, 'test'>;
}

export interface RunData {
  labelled: LabelledRow[];
  unlabelled: UnlabelledRow[];
}

const progressSchema = z.object({
  at: z.string(),
  stage: z.string(),
  progress: z.number().min(0).max(1),
  metrics: z.record(z.string(), z.unknown()).optional(),
});
export type RunProgress = z.infer<typeof progressSchema>;

const resultSchema = z.discriminatedUnion('ok', [
  z.looseObject({ ok: z.literal(true), version: z.number().int(), bundle: z.string() }),
  z.looseObject({ ok: z.literal(false), code: z.string(), message: z.string() }),
]);
export type RunResult = z.infer<typeof resultSchema>;

export const LABELLED_FILE = 'labelled.jsonl';
export const UNLABELLED_FILE = 'unlabelled.jsonl';
export const PROGRESS_FILE = 'progress.jsonl';
export const LOG_FILE = 'trainer.log';
const LABEL_ISSUES_FILE = 'label-issues.jsonl';
const PSEUDO_LABELS_FILE = 'pseudo-labels.jsonl';

const labelIssueSchema = z.object({
  itemKey: z.string(),
  label: z.string().optional(),
  labels: z.array(z.string()).optional(),
  doubt: z.number().min(0).max(1),
  distribution: z.array(z.number()),
});

/** A labelled row whose label the run's models, none of which had seen it, doubt. */
export interface LabelIssue {
  itemKey: string;
  /** As the run read them. */
  labels: string[];
  /** In [0, 1]; half: another label is as probable as its own. */
  doubt: number;
  /** Out of fold, in the order of the task's labels or the item's choices. */
  distribution: number[];
}

const pseudoLabelSchema = z.object({
  itemKey: z.string(),
  label: z.string().optional(),
  labels: z.array(z.string()).optional(),
  confidence: z.number(),
  contested: z.boolean(),
  strategy: z.string(),
  rule: z.string(),
  round: z.number().int(),
  votes: z.record(z.string(), z.union([z.string(), z.array(z.string())])),
});

/** A text that the student learned as the teachers labelled it, and why it was let in. */
export interface PseudoLabel {
  itemKey: string;
  labels: string[];
  /** Of the teachers together, calibrated; of a label set, of its least sure label. */
  confidence: number;
  /** Whether a teacher says otherwise. */
  contested: boolean;
  /** Of `learning.selection`, and which of its rules. */
  strategy: string;
  rule: string;
  /** Of self-training, from 1. */
  round: number;
  votes: { teacher: string; labels: string[] }[];
}

/** Writes settings and data, each file whole or not at all. */
export async function writeRunFolder(folder: string, settings: RunSettings, data: RunData): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeWhole(path.join(folder, LABELLED_FILE), toLines(data.labelled));
  await writeWhole(path.join(folder, UNLABELLED_FILE), toLines(data.unlabelled));
  await writeWhole(path.join(folder, 'run.json'), `${JSON.stringify(settings, null, 2)}\n`);
}

/** SHA-256 (hex) of what the run trains on: of the digests of its two files. */
export async function dataDigest(folder: string): Promise<string> {
  const digest = createHash('sha256');
  for (const name of [LABELLED_FILE, UNLABELLED_FILE]) {
    digest.update(
      createHash('sha256')
        .update(await readFile(path.join(folder, name)))
        .digest('hex'),
    );
  }
  return digest.digest('hex');
}

/** Settings of a folder that an earlier attempt filled; null where there is none, or it is not whole. */
export async function readRunSettings(folder: string): Promise<RunSettings | null> {
  const settings = (await readJson(path.join(folder, 'run.json'))) as RunSettings | null;
  return settings?.formatVersion === RUN_FORMAT_VERSION ? settings : null;
}

/** What the trainer said last; null where it has not, or what it wrote is no result. */
export async function readResult(folder: string): Promise<RunResult | null> {
  const parsed = resultSchema.safeParse(await readJson(path.join(folder, 'result.json')));
  return parsed.success ? parsed.data : null;
}

/** The most doubtful first; none where the trainer wrote none. Throws where a line is no such row. */
export async function readLabelIssues(folder: string): Promise<LabelIssue[]> {
  const rows = (await readRows(folder, LABEL_ISSUES_FILE, labelIssueSchema)) ?? [];
  return rows.map(({ label, labels, ...issue }) => ({ ...issue, labels: labels ?? [label ?? []].flat() }));
}

/** In the order in which they were selected; null where the folder has none. Throws where a line is no such row. */
export async function readPseudoLabels(folder: string): Promise<PseudoLabel[] | null> {
  const rows = await readRows(folder, PSEUDO_LABELS_FILE, pseudoLabelSchema);
  return (
    rows?.map(({ label, labels, votes, ...rest }) => ({
      ...rest,
      labels: labels ?? [label ?? []].flat(),
      votes: Object.entries(votes).map(([teacher, said]) => ({ teacher, labels: [said].flat() })),
    })) ?? null
  );
}

/** A failed attempt's result would be taken for the next attempt's. */
export async function clearResult(folder: string): Promise<void> {
  await rm(path.join(folder, 'result.json'), { force: true });
}

/** A line of progress.jsonl; null where it is none (a killed trainer leaves half a line). */
export function parseProgress(line: string): RunProgress | null {
  try {
    const parsed = progressSchema.safeParse(JSON.parse(line));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}

function toLines(rows: readonly unknown[]): string {
  // U+2028 and U+2029 end a line for some readers; escaped, a row is one line for all.
  return rows
    .map((row) => `${JSON.stringify(row).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029')}\n`)
    .join('');
}

async function writeWhole(file: string, content: string): Promise<void> {
  const half = `${file}.partial`;
  await writeFile(half, content);
  await rename(half, file);
}

async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch {
    return null;
  }
}

/** The rows of a file of JSON lines; null where there is none. Throws where a line is no such row. */
async function readRows<T>(folder: string, name: string, schema: z.ZodType<T>): Promise<T[] | null> {
  const content = await readFile(path.join(folder, name), 'utf8').catch(() => null);
  const lines = content?.split('\n').filter((line) => line !== '');
  return lines?.map((line) => schema.parse(JSON.parse(line))) ?? null;
}
