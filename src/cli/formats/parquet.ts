/**
 * Parquet as Hugging Face datasets write and read it: a column a part of an item, labels as strings or as the numbers of
 * a ClassLabel, whose names stand in the file's metadata. Read and written a group of rows at a time.
 */
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, type SchemaElement } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { fileWriter, ParquetWriter } from 'hyparquet-writer';
import { Failure } from '../client.js';
import {
  type Entry,
  type ExampleRecord,
  isObject,
  type JsonObject,
  type OutgoingRecord,
  readLabels,
  readRest,
  requireText,
  type TextRecord,
} from './records.js';
import type { Source } from './sources.js';

const MAGIC = 'PAR1';
/** datasets' own size; more are read as well, as long as they fit. */
const GROUP_ROWS = 1000;
const LARGEST_GROUP = 2 ** 30;
const TEXT_COLUMNS = ['text', 'review', 'sentence', 'content'];
/** hyparquet's own leaves U+FEFF out at the start of a string. */
const DECODER = new TextDecoder('utf-8', { ignoreBOM: true });
const parsers = { stringFromBytes: (bytes: Uint8Array | undefined) => bytes && DECODER.decode(bytes) };

export function isParquet(head: string): boolean {
  return head.startsWith(MAGIC);
}

/** Rows by columns, the numbers of a ClassLabel as its names. `onRead`: bytes of the groups that were read. */
export async function* parquetRowsIn(
  { path, size }: Source,
  onRead: (bytes: number) => void = () => undefined,
): AsyncGenerator<Entry<JsonObject>> {
  const file = await asyncBufferFromFile(path);
  let metadata;
  try {
    metadata = await parquetMetadataAsync(file);
  } catch (error) {
    throw new Failure(`${path} is no Parquet file that can be read: ${(error as Error).message}`);
  }
  const names = classLabels(metadata.key_value_metadata ?? []);
  const total = Number(metadata.num_rows);
  let rowStart = 0;
  for (const group of metadata.row_groups) {
    if (group.total_byte_size > LARGEST_GROUP) {
      throw new Failure(
        `${path}: a group of rows takes ${group.total_byte_size} bytes; write groups of ${GROUP_ROWS} rows`,
      );
    }
    const rowEnd = rowStart + Number(group.num_rows);
    const rows = (await parquetReadObjects({ file, metadata, rowStart, rowEnd, compressors, parsers })) as JsonObject[];
    for (const [i, row] of rows.entries()) yield { line: rowStart + i + 1, value: named(row, names) };
    rowStart = rowEnd;
    onRead((size * rowEnd) / total);
  }
}

export function readParquetRow(row: JsonObject): ExampleRecord {
  const labels = readLabels(row['labels'] ?? row['label'], 'labels');
  const { id: _, ...item } = readParquetText(row);
  return { ...item, labels, ...readRest({ split: row['split'] }) };
}

export function readParquetText(row: JsonObject): TextRecord {
  const column = TEXT_COLUMNS.find((name) => typeof row[name] === 'string');
  const text = requireText(column === undefined ? undefined : row[column], `a column ${TEXT_COLUMNS.join(' or ')}`);
  const fields = typeof row['fields'] === 'string' ? (JSON.parse(row['fields']) as unknown) : row['fields'];
  const { split: _, ...rest } = readRest({
    textPair: row['textPair'] ?? row['text_pair'],
    choices: row['choices'],
    fields,
  });
  const { id } = row;
  const given = typeof id === 'string' || typeof id === 'number' || typeof id === 'bigint';
  return { ...(given && { id: String(id) }), text, ...rest };
}

/**
 * `classes`: the task's labels where a text has exactly one of them: then `label` is a ClassLabel beside `labels`, as
 * training scripts expect it. How many were written.
 */
export async function writeParquet(
  path: string,
  records: AsyncIterable<OutgoingRecord>,
  classes: readonly string[] | null,
): Promise<number> {
  const kvMetadata = [{ key: 'huggingface', value: JSON.stringify({ info: { features: featuresOf(classes) } }) }];
  const writer = new ParquetWriter({
    writer: fileWriter(path),
    schema: schemaOf(classes !== null),
    kvMetadata,
    createdBy: 'fewloop',
  });
  let written = 0;
  let group: OutgoingRecord[] = [];
  const flush = async () => {
    if (group.length > 0) await writer.write({ columnData: columnsOf(group, classes), rowGroupSize: GROUP_ROWS });
    written += group.length;
    group = [];
  };
  for await (const record of records) {
    group.push(record);
    if (group.length === GROUP_ROWS) await flush();
  }
  await flush();
  await writer.finish();
  return written;
}

function columnsOf(records: OutgoingRecord[], classes: readonly string[] | null) {
  const column = (name: string, value: (record: OutgoingRecord) => unknown) => {
    return { name, data: records.map((record) => value(record) ?? null) };
  };
  return [
    column('text', ({ text }) => text),
    column('textPair', ({ textPair }) => textPair),
    column('choices', ({ choices }) => choices),
    column('fields', ({ fields }) => fields && JSON.stringify(fields)),
    column('labels', ({ labels }) => labels),
    ...(classes ? [column('label', ({ labels }) => BigInt(classes.indexOf(labels?.[0] ?? '')))] : []),
    column('split', ({ split }) => split?.toLowerCase()),
  ];
}

const string = (name: string): SchemaElement => {
  return { name, type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' };
};
const strings = (name: string): SchemaElement[] => [
  { name, num_children: 1, converted_type: 'LIST', repetition_type: 'OPTIONAL' },
  { name: 'list', num_children: 1, repetition_type: 'REPEATED' },
  string('element'),
];

function schemaOf(hasClass: boolean): SchemaElement[] {
  return [
    { name: 'schema', num_children: hasClass ? 7 : 6 },
    string('text'),
    string('textPair'),
    ...strings('choices'),
    string('fields'),
    ...strings('labels'),
    ...(hasClass ? [{ name: 'label', type: 'INT64', repetition_type: 'OPTIONAL' } as const] : []),
    string('split'),
  ];
}

function featuresOf(classes: readonly string[] | null): JsonObject {
  const value = { dtype: 'string', _type: 'Value' };
  const values = { feature: value, _type: 'List' };
  return {
    text: value,
    textPair: value,
    choices: values,
    fields: value,
    labels: values,
    ...(classes && { label: { names: classes, _type: 'ClassLabel' } }),
    split: value,
  };
}

/** Column → names, of columns that are ClassLabels or lists of them. */
function classLabels(metadata: { key: string; value?: string }[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  const told = metadata.find(({ key }) => key === 'huggingface')?.value;
  if (told === undefined) return found;
  const { info } = JSON.parse(told) as { info?: { features?: Record<string, unknown> } };
  for (const [column, feature] of Object.entries(info?.features ?? {})) {
    const inner = isObject(feature) && isObject(feature['feature']) ? feature['feature'] : feature;
    if (isObject(inner) && inner['_type'] === 'ClassLabel' && Array.isArray(inner['names'])) {
      found.set(column, inner['names'] as string[]);
    }
  }
  return found;
}

/** Numbers that are none of its classes (datasets write -1 for no label) stay what they are. */
function named(row: JsonObject, classes: ReadonlyMap<string, string[]>): JsonObject {
  const result = { ...row };
  for (const [column, names] of classes) {
    const nameOf = (value: unknown) => names[Number(value)] ?? value;
    const value = row[column];
    if (Array.isArray(value)) result[column] = value.map(nameOf);
    else if (value !== null && value !== undefined) result[column] = nameOf(value);
  }
  return result;
}
