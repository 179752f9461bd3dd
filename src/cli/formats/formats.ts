/** The formats by name, and which of them a file is in. */
import { extname } from 'node:path';
import { csvRowsIn, EXAMPLE_HEADER, readCsvRow, readCsvText, TEXT_HEADER, writeCsvRow } from './csv.js';
import { isFewclue, readFewclueRow, writeFewclueRow } from './fewclue.js';
import { readJsonlRow, readJsonlText, writeDoccanoRow, writeJsonlRow } from './jsonl.js';
import { isLabelStudio, labelStudioEnd, readLabelStudioRow, writeLabelStudioRow } from './label-studio.js';
import { isParquet, parquetRowsIn, readParquetRow, readParquetText } from './parquet.js';
import { isProdigy, readProdigyRow, writeProdigyRow } from './prodigy.js';
import {
  type Entry,
  type ExampleRecord,
  type JsonObject,
  type OutgoingRecord,
  readEach,
  type TextRecord,
} from './records.js';
import { linesIn, objectsIn, type Source } from './sources.js';

/** Told how many bytes of the file have been read. */
type OnRead = (bytes: number) => void;
export type Reader<T> = (source: Source, onRead?: OnRead) => AsyncIterable<Entry<T>>;

const objects =
  <T>(read: (row: JsonObject) => T | null): Reader<T> =>
  (source, onRead) =>
    readEach(objectsIn(source, onRead), read);
const csv =
  <T>(read: (row: JsonObject) => T | null, header: typeof TEXT_HEADER): Reader<T> =>
  (source, onRead) =>
    readEach(csvRowsIn(source.chunks(onRead), header), read);
const parquet =
  <T>(read: (row: JsonObject) => T | null): Reader<T> =>
  (source, onRead) =>
    readEach(parquetRowsIn(source, onRead), read);

export const EXAMPLE_READERS = {
  jsonl: objects(readJsonlRow),
  csv: csv(readCsvRow, EXAMPLE_HEADER),
  fewclue: objects(readFewclueRow),
  'label-studio': objects(readLabelStudioRow),
  doccano: objects(readJsonlRow),
  prodigy: objects(readProdigyRow),
  parquet: parquet(readParquetRow),
} satisfies Record<string, Reader<ExampleRecord>>;

export const TEXT_READERS = {
  jsonl: objects(readJsonlText),
  csv: csv(readCsvText, TEXT_HEADER),
  lines: (source: Source, onRead?: OnRead) => readEach(linesIn(source.chunks(onRead)), (text) => ({ text })),
  parquet: parquet(readParquetText),
} satisfies Record<string, Reader<TextRecord>>;

/** A record as it stands in the file; `index`: how many stand before it; `names`: the task's labels. */
type RowWriter = (record: OutgoingRecord, index: number, names: readonly string[]) => string;

/** Of files that are text. */
export const EXAMPLE_WRITERS = {
  jsonl: writeJsonlRow,
  csv: writeCsvRow,
  'label-studio': writeLabelStudioRow,
  doccano: writeDoccanoRow,
  prodigy: writeProdigyRow,
  fewclue: writeFewclueRow,
} satisfies Record<string, RowWriter>;

export type ExampleFormat = keyof typeof EXAMPLE_READERS;
export type TextFormat = keyof typeof TEXT_READERS;
export type WrittenFormat = keyof typeof EXAMPLE_WRITERS;

/** Piece by piece. Throws Failure where a record has no place in the format. */
export async function* written(
  format: WrittenFormat,
  records: AsyncIterable<OutgoingRecord>,
  names: readonly string[],
): AsyncGenerator<string> {
  const write: RowWriter = EXAMPLE_WRITERS[format];
  let index = 0;
  for await (const record of records) yield write(record, index++, names);
  if (format === 'label-studio') yield labelStudioEnd(index);
}

/** By the first entry that can be read: a malformed one elsewhere does not matter. */
export async function detectExamples(source: Source): Promise<ExampleFormat> {
  const head = await headOf(source);
  if (isParquet(head)) return 'parquet';
  const row = await firstObject(source, head);
  if (row === null) return 'csv';
  if (isLabelStudio(row)) return 'label-studio';
  if (isProdigy(row)) return 'prodigy';
  if (isFewclue(row)) return 'fewclue';
  return extname(source.path) === '.csv' ? 'csv' : 'jsonl';
}

export async function detectTexts(source: Source): Promise<TextFormat> {
  if (extname(source.path) === '.csv') return 'csv';
  const head = await headOf(source);
  if (isParquet(head)) return 'parquet';
  return (await firstObject(source, head)) === null ? 'lines' : 'jsonl';
}

/** Of 100 entries at most; a line of plain text may begin with a bracket as well. */
async function firstObject(source: Source, head: string): Promise<JsonObject | null> {
  if (!/^\s*[[{]/u.test(head)) return null;
  let seen = 0;
  for await (const entry of objectsIn(source)) {
    if ('value' in entry) return entry.value;
    if (++seen === 100) break;
  }
  return null;
}

/** Its first characters, as far as they are any: a Parquet file is no UTF-8. */
async function headOf(source: Source): Promise<string> {
  return (await source.head()).trimStart();
}
