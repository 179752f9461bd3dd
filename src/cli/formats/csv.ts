/** CSV with a header, quoted as spreadsheets quote, with or without a byte-order mark. */
import { type CsvError, parse } from 'csv-parse';
import { stringify } from 'csv-stringify/sync';
import { pipeline } from 'node:stream';
import { Failure } from '../client.js';
import {
  type Entry,
  type ExampleRecord,
  type JsonObject,
  type OutgoingRecord,
  readLabels,
  readRest,
  requireText,
  restOf,
  type TextRecord,
} from './records.js';

/** What the column of the text is called in practice. */
const TEXT_COLUMNS = ['text', 'review', 'sentence', 'content'];
const COLUMNS = ['text', 'textPair', 'choices', 'fields', 'labels', 'split'];
const LONGEST_ROW = 32 * 2 ** 20;

/** Of each list the header has one. */
export const TEXT_HEADER: Header = [TEXT_COLUMNS];
export const EXAMPLE_HEADER: Header = [TEXT_COLUMNS, ['label', 'labels']];
type Header = readonly (readonly string[])[];

/** Rows by the names of the header. Throws Failure where that lacks one: each row would be refused, or it is no CSV. */
export async function* csvRowsIn(chunks: AsyncIterable<string>, needed: Header): AsyncGenerator<Entry<JsonObject>> {
  let columns: string[] | undefined;
  const skipped: Entry<never>[] = [];
  const parser = pipeline(
    chunks,
    parse({
      bom: true,
      columns: (header: string[]) => (columns = header.map((name) => name.trim())),
      info: true,
      max_record_size: LONGEST_ROW,
      skip_empty_lines: true,
      skip_records_with_error: true,
      on_skip: (error: CsvError | undefined) => {
        const line = (error as { lines?: number } | undefined)?.lines ?? 0;
        skipped.push({ line, error: error?.message ?? 'malformed' });
        return undefined;
      },
    }),
    // What fails in the chunks is thrown to whoever reads the rows.
    () => undefined,
  );
  for await (const { record, info } of parser as AsyncIterable<{ record: JsonObject; info: { lines: number } }>) {
    checkHeader(columns, needed);
    yield* skipped.splice(0);
    yield { line: info.lines, value: record };
  }
  checkHeader(columns, needed);
  yield* skipped;
}

function checkHeader(columns: string[] | undefined, needed: Header): void {
  const lacking = needed.filter((names) => columns && !names.some((name) => columns.includes(name)));
  if (!columns || lacking.length === 0) return;
  const given = columns.map((name) => name.slice(0, 40)).slice(0, 20);
  const missing = lacking.map((names) => names.join(' or ')).join(', and ');
  throw new Failure(`read as CSV, whose columns are: ${given.join(', ')}; it needs ${missing}`, 'BAD_INPUT');
}

export function readCsvRow(row: JsonObject): ExampleRecord {
  const labels = row['labels'] === undefined ? readLabels(cell(row['label']), 'label') : list(row['labels']);
  const { id: _, ...record } = readCsvText(row);
  return { ...record, labels, ...readRest({ split: row['split'] }) };
}

export function readCsvText(row: JsonObject): TextRecord {
  const column = TEXT_COLUMNS.find((name) => row[name] !== undefined);
  const text = requireText(column === undefined ? undefined : row[column], `a column ${TEXT_COLUMNS.join(' or ')}`);
  const { split: _, ...rest } = readRest({
    textPair: cell(row['textPair'] ?? row['text_pair']),
    choices: json(cell(row['choices'])),
    fields: json(cell(row['fields'])),
  });
  const id = cell(row['id']);
  return { ...(typeof id === 'string' && { id }), text, ...rest };
}

/** Lists and fields as JSON: what a name may hold is no separator. */
export function writeCsvRow(record: OutgoingRecord, index: number): string {
  const { choices, fields, ...rest } = restOf(record);
  const labels = JSON.stringify(record.labels ?? []);
  const [given, named] = [choices, fields].map((value) => value && JSON.stringify(value));
  const row = { text: record.text, ...rest, choices: given, fields: named, labels };
  return stringify([row], { columns: COLUMNS, header: index === 0, quoted_string: true });
}

/** An empty cell is nothing. */
function cell(value: unknown): unknown {
  return value === '' ? undefined : value;
}

function json(value: unknown): unknown {
  return typeof value === 'string' ? JSON.parse(value) : undefined;
}

/** A JSON list, or names with | between; an empty cell says that the text has none. */
function list(value: unknown): string[] {
  const text = requireText(value, 'labels');
  if (text === '') return [];
  return text.startsWith('[') ? readLabels(JSON.parse(text), 'labels') : text.split('|');
}
