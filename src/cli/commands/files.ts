/** Files into the service and out of it: import, ingest, export, forget. */
import type { Command } from 'commander';
import { renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { type Client, Failure } from '../client.js';
import { contextOf, oneOf } from '../context.js';
import {
  detectExamples,
  detectTexts,
  EXAMPLE_READERS,
  EXAMPLE_WRITERS,
  type ExampleFormat,
  TEXT_READERS,
  type TextFormat,
  type WrittenFormat,
  written,
} from '../formats/formats.js';
import { writeParquet } from '../formats/parquet.js';
import type { Entry, ExampleRecord, OutgoingRecord, SplitName } from '../formats/records.js';
import { fileSource } from '../formats/sources.js';
import { print, printJson, progress, say, sayError } from '../output.js';
import { send, type Sent } from '../sending.js';

const IMPORT = `mutation ($task: String!, $rows: [ExampleInput!]!) {
  result: importExamples(task: $task, examples: $rows) { added updated unchanged rejected { index code message } }
}`;
const INGEST = `mutation ($task: String!, $rows: [TextInput!]!) {
  result: ingest(task: $task, inputs: $rows) { accepted duplicates rejected { index code message } }
}`;
const LABELS = 'query ($task: String!) { task(name: $task) { kind labels examples { train dev test } } }';
const PREDICTION = 'prediction { labels confidence modelVersion }';
const EXPORT = `query ($task: String!, $after: String, $predictions: Boolean!) {
  page: exportExamples(task: $task, first: 500, after: $after, predictions: $predictions) {
    nodes { text textPair choices fields labels split ${PREDICTION} } pageInfo { hasNextPage endCursor }
  }
}`;
const QUESTIONS = `query ($task: String!, $after: String) { page: reviewQueue(task: $task, first: 100, after: $after) {
  edges { node { text textPair choices fields ${PREDICTION} } } pageInfo { hasNextPage endCursor }
} }`;
const FORGET = `mutation ($task: String!, $text: String, $id: ID, $digest: String) {
  forget(task: $task, text: $text, id: $id, digest: $digest) { digest candidates examples streamItems runRows pendingFolders }
}`;

export function fileCommands(program: Command): void {
  const exampleFormats = Object.keys(EXAMPLE_READERS) as ExampleFormat[];
  const writers = [...(Object.keys(EXAMPLE_WRITERS) as WrittenFormat[]), 'parquet' as const];
  const textFormats = Object.keys(TEXT_READERS) as TextFormat[];
  program
    .command('import <task> <file>')
    .description('labelled examples; the format is detected')
    .option('--split <split>', 'train, dev or test, for rows that name none', oneOf(['train', 'dev', 'test']))
    .option('--format <format>', exampleFormats.join(', '), oneOf(exampleFormats))
    .option('--rejects <file>', 'what was rejected, a JSON object a line')
    .option('--restart', 'from the start, although an earlier call was ended in the middle', false)
    .action(importFile);
  program
    .command('ingest <task> <file>')
    .description('unlabelled texts into the stream')
    .option('--format <format>', textFormats.join(', '), oneOf(textFormats))
    .option('--rejects <file>', 'what was rejected, a JSON object a line')
    .option('--restart', 'from the start, although an earlier call was ended in the middle', false)
    .action(ingestFile);
  program
    .command('export <task>')
    .description('labelled examples, without loss')
    .requiredOption('--format <format>', writers.join(', '), oneOf(writers))
    .option('--out <file>', 'a file in place of standard output; parquet needs one')
    .option('--predictions', 'with what the service says of each, where it knows: label-studio, jsonl', false)
    .option(
      '--questions',
      'in place of examples what waits to be answered, with predictions: label-studio, jsonl',
      false,
    )
    .action(exportTask);
  program
    .command('forget <task>')
    .description('erase a text everywhere')
    .option('--text <text>', 'the text itself')
    .option('--id <id>', 'the id it was ingested with')
    .option('--digest <sha256>', 'what the ledger keeps of it: for a text that a backup brought back')
    .action(forget);
}

interface SendOptions {
  rejects?: string;
  restart: boolean;
}

async function importFile(
  task: string,
  file: string,
  options: SendOptions & { split?: string; format?: ExampleFormat },
  command: Command,
): Promise<void> {
  const { client, json } = contextOf(command);
  const source = fileSource(file);
  const format = options.format ?? (await detectExamples(source));
  const split = options.split?.toUpperCase() as SplitName | undefined;
  const sent = await send({
    client,
    task,
    source,
    mutation: IMPORT,
    names: ['added', 'updated', 'unchanged'],
    how: { format, split },
    read: (onRead) => withSplit(EXAMPLE_READERS[format](source, onRead), split),
    restart: options.restart,
    rejects: options.rejects,
  });
  report(sent, json);
}

/** For rows that name none. */
async function* withSplit(
  entries: AsyncIterable<Entry<ExampleRecord>>,
  split: SplitName | undefined,
): AsyncGenerator<Entry<ExampleRecord>> {
  for await (const entry of entries) {
    yield 'value' in entry && split ? { ...entry, value: { split, ...entry.value } } : entry;
  }
}

async function ingestFile(
  task: string,
  file: string,
  options: SendOptions & { format?: TextFormat },
  command: Command,
): Promise<void> {
  const { client, json } = contextOf(command);
  const source = fileSource(file);
  const format = options.format ?? (await detectTexts(source));
  const sent = await send({
    client,
    task,
    source,
    mutation: INGEST,
    names: ['accepted', 'duplicates'],
    how: { format },
    read: (onRead) => TEXT_READERS[format](source, onRead),
    restart: options.restart,
    rejects: options.rejects,
  });
  report(sent, json);
}

function report({ counts, rejected, rejectedCount, resumedAfter }: Sent, json: boolean): void {
  if (json) printJson({ ...counts, rejected, rejectedCount, resumedAfter });
  else {
    const parts = Object.entries(counts).map(([name, count]) => `${count} ${name}`);
    print([...parts, `${rejectedCount} rejected`].join(', '));
    if (resumedAfter > 0) say(`the first ${resumedAfter} entries were sent by an earlier call`);
    for (const { line, message } of rejected) say(`line ${line}: ${message}`);
    if (rejectedCount > rejected.length)
      say(`… and ${rejectedCount - rejected.length} more: --rejects FILE has them all`);
  }
  if (rejectedCount > 0) process.exitCode = 1;
}

interface ExportOptions {
  format: WrittenFormat | 'parquet';
  out?: string;
  predictions: boolean;
  questions: boolean;
}

async function exportTask(task: string, options: ExportOptions, command: Command): Promise<void> {
  const { out, questions } = options;
  const what = questions ? 'questions' : 'examples';
  try {
    const { client, json } = contextOf(command);
    const count = await exportRows(client, task, options);
    if (json && out !== undefined) printJson({ out, [what]: count });
    else say(`${count} ${what}`);
  } catch (error) {
    if (out !== undefined) throw error;
    // Standard output is for rows of the format alone.
    sayError(error);
    process.exitCode = 1;
  }
}

/** Returns how many. A file is there when it is complete, or not at all. */
async function exportRows(client: Client, task: string, options: ExportOptions): Promise<number> {
  const { format, out, predictions, questions } = options;
  if ((predictions || questions) && format !== 'label-studio' && format !== 'jsonl') {
    throw new Failure(`${format} has no place for predictions: take label-studio or jsonl`, 'BAD_INPUT');
  }
  const { task: found } = await client.request<{ task: ExportedTask | null }>(LABELS, { task });
  if (!found) throw new Failure(`there is no task ${task}`, 'TASK_NOT_FOUND');
  const { kind, labels, examples } = found;
  const partial = `${out}.partial`;
  if (out !== undefined) begin(partial, out);
  const bar = progress(examples.train + examples.dev + examples.test, 'examples');
  let count = 0;
  const records = counted(questions ? questionsOf(client, task) : examplesOf(client, task, predictions), () => {
    count += 1;
    if (count % 100 === 0) bar.count(count, `${count} rows`);
  });
  try {
    if (format === 'parquet') {
      if (out === undefined) throw new Failure('parquet is no text: name a file by --out', 'BAD_INPUT');
      const exclusive = kind === 'SINGLE_LABEL' || kind === 'SENTENCE_PAIR';
      await writeParquet(partial, records, exclusive ? labels : null);
    } else if (out === undefined) {
      for await (const text of written(format, records, labels)) await toOutput(text);
    } else {
      const file = await open(partial, 'w');
      try {
        for await (const text of written(format, records, labels)) await file.appendFile(text);
        await file.sync();
      } finally {
        await file.close();
      }
    }
    if (out !== undefined) renameSync(partial, out);
  } catch (error) {
    if (out !== undefined) rmSync(partial, { force: true });
    throw error;
  } finally {
    bar.stop();
  }
  return count;
}

/** Before anything is asked for. Throws Failure where `out` cannot be written. */
function begin(partial: string, out: string): void {
  try {
    if (statSync(out, { throwIfNoEntry: false })?.isDirectory()) throw new Error('it is a folder');
    writeFileSync(partial, '');
  } catch (error) {
    throw new Failure(`cannot write ${out}: ${(error as Error).message}`, 'BAD_INPUT');
  }
}

interface ExportedTask {
  kind: string;
  labels: string[];
  examples: { train: number; dev: number; test: number };
}

async function* counted<T>(records: AsyncIterable<T>, onRecord: () => void): AsyncGenerator<T> {
  for await (const record of records) {
    yield record;
    onRecord();
  }
}

/** As fast as whoever reads takes it. */
function toOutput(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => (error ? reject(error) : resolve()));
  });
}

interface PageInfo {
  hasNextPage: boolean;
  endCursor: string | null;
}

async function* pagesOf<P extends { pageInfo: PageInfo }>(
  client: Client,
  query: string,
  variables: object,
): AsyncGenerator<P> {
  for (let after: string | null = null; ;) {
    const { page }: { page: P } = await client.request<{ page: P }>(query, { ...variables, after });
    yield page;
    if (!page.pageInfo.hasNextPage) return;
    after = page.pageInfo.endCursor;
  }
}

async function* examplesOf(client: Client, task: string, predictions: boolean): AsyncGenerator<OutgoingRecord> {
  type Page = { nodes: OutgoingRecord[]; pageInfo: PageInfo };
  for await (const { nodes } of pagesOf<Page>(client, EXPORT, { task, predictions })) yield* nodes.map(withoutNulls);
}

async function* questionsOf(client: Client, task: string): AsyncGenerator<OutgoingRecord> {
  type Page = { edges: { node: OutgoingRecord }[]; pageInfo: PageInfo };
  for await (const { edges } of pagesOf<Page>(client, QUESTIONS, { task }))
    yield* edges.map(({ node }) => withoutNulls(node));
}

/** GraphQL's null is an absent part. */
function withoutNulls(record: OutgoingRecord): OutgoingRecord {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== null)) as unknown as OutgoingRecord;
}

interface Forgotten {
  digest: string;
  candidates: number;
  examples: number;
  streamItems: number;
  pendingFolders: number;
}

async function forget(
  task: string,
  options: { text?: string; id?: string; digest?: string },
  command: Command,
): Promise<void> {
  if (Object.keys(options).length !== 1) {
    command.error('error: one of --text, --id and --digest is needed', { exitCode: 2 });
  }
  const { client, json } = contextOf(command);
  const { forget: erased } = await client.request<{ forget: Forgotten }>(FORGET, { task, ...options });
  if (json) return printJson(erased);
  const { digest, candidates, examples, streamItems, pendingFolders } = erased;
  print(`${candidates} candidates, ${examples} examples, ${streamItems} stream items erased; its digest is ${digest}`);
  if (pendingFolders > 0) say(`${pendingFolders} data folders with runs erase it within a minute (pendingErasures)`);
}
