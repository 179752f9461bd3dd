/** Files into the service and out of it: import, ingest, export, forget. */
import type { Command } from 'commander';
import { writeFileSync } from 'node:fs';
import { type Client, patiently } from '../client.js';
import { contextOf, oneOf, readText } from '../context.js';
import {
  detectExamples,
  detectTexts,
  EXAMPLE_READERS,
  EXAMPLE_WRITERS,
  type ExampleFormat,
  TEXT_READERS,
  type TextFormat,
} from '../formats/formats.js';
import type { ExampleRecord, Placed, ReadResult, SplitName } from '../formats/records.js';
import { print, printJson, progress, say } from '../output.js';

/** Under the service's limits of texts and bytes. */
const CHUNK_ROWS = 500;
const CHUNK_CHARACTERS = 1_000_000;

const IMPORT = `mutation ($task: String!, $rows: [ExampleInput!]!) {
  result: importExamples(task: $task, examples: $rows) { added updated unchanged rejected { index code message } }
}`;
const INGEST = `mutation ($task: String!, $rows: [TextInput!]!) {
  result: ingest(task: $task, inputs: $rows) { accepted duplicates rejected { index code message } }
}`;
const EXPORT = `query ($task: String!, $after: String) { exportExamples(task: $task, first: 500, after: $after) {
  nodes { text textPair choices fields labels split } pageInfo { hasNextPage endCursor }
} }`;
const FORGET = `mutation ($task: String!, $text: String, $id: ID) {
  forget(task: $task, text: $text, id: $id) { digest candidates examples streamItems runRows }
}`;

export function fileCommands(program: Command): void {
  const exampleFormats = Object.keys(EXAMPLE_READERS) as ExampleFormat[];
  const writers = Object.keys(EXAMPLE_WRITERS) as (keyof typeof EXAMPLE_WRITERS)[];
  const textFormats = Object.keys(TEXT_READERS) as TextFormat[];
  program
    .command('import <task> <file>')
    .description('labelled examples; the format is detected')
    .option('--split <split>', 'train, dev or test, for rows that name none', oneOf(['train', 'dev', 'test']))
    .option('--format <format>', exampleFormats.join(', '), oneOf(exampleFormats))
    .action(importFile);
  program
    .command('ingest <task> <file>')
    .description('unlabelled texts into the stream')
    .option('--format <format>', textFormats.join(', '), oneOf(textFormats))
    .action(ingestFile);
  program
    .command('export <task>')
    .description('labelled examples, without loss')
    .requiredOption('--format <format>', writers.join(', '), oneOf(writers))
    .option('--out <file>', 'a file in place of standard output')
    .action(exportTask);
  program
    .command('forget <task>')
    .description('erase a text everywhere')
    .option('--text <text>', 'the text itself')
    .option('--id <id>', 'the id it was ingested with')
    .action(forget);
}

interface ImportOptions {
  split?: string;
  format?: ExampleFormat;
}

async function importFile(task: string, file: string, options: ImportOptions, command: Command): Promise<void> {
  const content = readText(file);
  const read = EXAMPLE_READERS[options.format ?? detectExamples(file, content)](content);
  const split = options.split?.toUpperCase() as SplitName | undefined;
  const records = read.records.map(({ line, value }) => ({ line, value: { ...(split && { split }), ...value } }));
  await send(command, task, IMPORT, { records, errors: read.errors }, ['added', 'updated', 'unchanged']);
}

async function ingestFile(
  task: string,
  file: string,
  options: { format?: TextFormat },
  command: Command,
): Promise<void> {
  const content = readText(file);
  const read = TEXT_READERS[options.format ?? detectTexts(file, content)](content);
  await send(command, task, INGEST, read, ['accepted', 'duplicates']);
}

type Counts = Record<string, number>;
type ChunkResult = Counts & { rejected: { index: number; code: string; message: string }[] };

async function send(command: Command, task: string, mutation: string, read: ReadResult<object>, names: string[]) {
  const { client, json } = contextOf(command);
  const counts: Counts = Object.fromEntries(names.map((name) => [name, 0]));
  const rejected = read.errors.map(({ line, message }) => ({ line, code: 'BAD_INPUT', message }));
  const bar = progress(read.records.length, 'rows');
  let done = 0;
  try {
    for (const chunk of chunksOf(read.records)) {
      const rows = chunk.map(({ value }) => value);
      const { result } = await patiently(
        () => client.request<{ result: ChunkResult }>(mutation, { task, rows }),
        (seconds) => bar.update(done, `the service is busy, asking again in ${seconds} s`),
      );
      for (const name of names) counts[name]! += result[name] ?? 0;
      rejected.push(
        ...result.rejected.map(({ index, code, message }) => ({ line: chunk[index]!.line, code, message })),
      );
      bar.update((done += chunk.length));
    }
  } finally {
    bar.stop();
  }
  rejected.sort((a, b) => a.line - b.line);
  if (json) printJson({ ...counts, rejected });
  else print([...names.map((name) => `${counts[name]} ${name}`), `${rejected.length} rejected`].join(', '));
  if (!json) for (const { line, message } of rejected) say(`line ${line}: ${message}`);
  if (rejected.length > 0) process.exitCode = 1;
}

function* chunksOf<T>(records: Placed<T>[]): Generator<Placed<T>[]> {
  let chunk: Placed<T>[] = [];
  let characters = 0;
  for (const record of records) {
    const size = JSON.stringify(record.value).length;
    if (chunk.length > 0 && (chunk.length >= CHUNK_ROWS || characters + size > CHUNK_CHARACTERS)) {
      yield chunk;
      chunk = [];
      characters = 0;
    }
    chunk.push(record);
    characters += size;
  }
  if (chunk.length > 0) yield chunk;
}

interface ExportOptions {
  format: keyof typeof EXAMPLE_WRITERS;
  out?: string;
}

async function exportTask(task: string, { format, out }: ExportOptions, command: Command): Promise<void> {
  const { client } = contextOf(command);
  const examples: ExampleRecord[] = [];
  for await (const page of pagesOf(client, task)) examples.push(...page);
  const written = EXAMPLE_WRITERS[format](examples);
  if (out === undefined) process.stdout.write(written);
  else writeFileSync(out, written);
  say(`${examples.length} examples`);
}

interface ExportPage {
  exportExamples: { nodes: ExampleRecord[]; pageInfo: { hasNextPage: boolean; endCursor: string | null } };
}

async function* pagesOf(client: Client, task: string): AsyncGenerator<ExampleRecord[]> {
  let after: string | null = null;
  for (;;) {
    const { exportExamples }: ExportPage = await client.request<ExportPage>(EXPORT, { task, after });
    // GraphQL's null is an absent part.
    yield exportExamples.nodes.map(
      (node) =>
        Object.fromEntries(Object.entries(node).filter(([, value]) => value !== null)) as unknown as ExampleRecord,
    );
    if (!exportExamples.pageInfo.hasNextPage) return;
    after = exportExamples.pageInfo.endCursor;
  }
}

interface Forgotten {
  digest: string;
  candidates: number;
  examples: number;
  streamItems: number;
}

async function forget(task: string, options: { text?: string; id?: string }, command: Command): Promise<void> {
  if ((options.text === undefined) === (options.id === undefined)) {
    command.error('error: one of --text and --id is needed', { exitCode: 2 });
  }
  const { client, json } = contextOf(command);
  const { forget: erased } = await client.request<{ forget: Forgotten }>(FORGET, { task, ...options });
  if (json) return printJson(erased);
  const { digest, candidates, examples, streamItems } = erased;
  print(`${candidates} candidates, ${examples} examples, ${streamItems} stream items erased; its digest is ${digest}`);
}
