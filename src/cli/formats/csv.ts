/** CSV with a header, quoted as spreadsheets quote, with or without a byte-order mark. */
import { type CsvError, parse } from 'csv-parse/sync';
import {
  type ExampleRecord,
  type JsonObject,
  type Placed,
  readEach,
  type ReadErrors,
  type ReadResult,
  readLabels,
  readRest,
  requireText,
  type TextRecord,
} from './records.js';

/** What the column of the text is called in practice. */
const TEXT_COLUMNS = ['text', 'review', 'sentence', 'content'];

export function readCsv(content: string): ReadResult<ExampleRecord> {
  return readRows(content, (row) => {
    const labels = row['labels'] === undefined ? readLabels(cell(row['label']), 'label') : list(row['labels']);
    const { id: _, ...record } = textOf(row);
    return { ...record, labels, ...readRest({ split: row['split'] }) };
  });
}

export function readCsvTexts(content: string): ReadResult<TextRecord> {
  return readRows(content, textOf);
}

function readRows<T>(content: string, read: (row: JsonObject) => T): ReadResult<T> {
  const skipped: ReadErrors[] = [];
  const rows = parse(content, {
    bom: true,
    columns: (header: string[]) => header.map((name) => name.trim()),
    info: true,
    skip_empty_lines: true,
    skip_records_with_error: true,
    on_skip: (error: CsvError | undefined) => {
      const line = (error as { lines?: number } | undefined)?.lines ?? 0;
      skipped.push({ line, message: error?.message ?? 'malformed' });
      return undefined;
    },
  }) as unknown as { record: JsonObject; info: { lines: number } }[];
  const entries = rows.map(({ record, info }): Placed<JsonObject> => ({ line: info.lines, value: record }));
  const result = readEach(entries, read);
  return { records: result.records, errors: [...skipped, ...result.errors].sort((a, b) => a.line - b.line) };
}

function textOf(row: JsonObject): TextRecord {
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
