/** What every file format reads into and writes from, and the shapes of a value that came from a file. */
export type SplitName = 'TRAIN' | 'DEV' | 'TEST';

export interface TextRecord {
  id?: string;
  text: string;
  textPair?: string;
  choices?: string[];
  fields?: Record<string, unknown>;
}

export interface ExampleRecord extends TextRecord {
  labels: string[];
  split?: SplitName;
}

/** Where a record stood: a line of the file, or the number of the entry where the file is one JSON array. */
export interface Placed<T> {
  line: number;
  value: T;
}

export interface ReadErrors {
  line: number;
  message: string;
}

export interface ReadResult<T> {
  records: Placed<T>[];
  errors: ReadErrors[];
}

export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Reads each entry on its own: one that is malformed becomes an error with its place, null is left out. */
export function readEach<S, T>(entries: Placed<S>[], read: (entry: S) => T | null): ReadResult<T> {
  const result: ReadResult<T> = { records: [], errors: [] };
  for (const { line, value } of entries) {
    try {
      const record = read(value);
      if (record !== null) result.records.push({ line, value: record });
    } catch (error) {
      result.errors.push({ line, message: error instanceof Error ? error.message : String(error) });
    }
  }
  return result;
}

/** Lines end in \n alone (or \r\n): U+2028 and its like are characters of a text. Empty lines are left out. */
export function linesOf(content: string): Placed<string>[] {
  return content
    .split('\n')
    .map((value, i) => ({ line: i + 1, value: value.endsWith('\r') ? value.slice(0, -1) : value }))
    .filter(({ value }) => value.trim() !== '');
}

export function parseObject(line: string): JsonObject {
  const value: unknown = JSON.parse(line);
  if (!isObject(value)) throw new Error('is no JSON object');
  return value;
}

/** A JSON array of objects, or an object a line: tools export either. */
export function jsonEntries(content: string): Placed<() => JsonObject>[] {
  if (!content.trimStart().startsWith('[')) {
    return linesOf(content).map(({ line, value }) => ({ line, value: () => parseObject(value) }));
  }
  const list = JSON.parse(content) as unknown[];
  return list.map((value, i) => ({
    line: i + 1,
    value: () => {
      if (!isObject(value)) throw new Error('is no JSON object');
      return value;
    },
  }));
}

export function requireText(value: unknown, name: string): string {
  if (typeof value !== 'string') throw new Error(`${name} ${value === undefined ? 'is missing' : 'is no string'}`);
  return value;
}

export function readLabels(value: unknown, name: string): string[] {
  const list = Array.isArray(value) ? value : [value];
  if (value === undefined || value === null) throw new Error(`${name} is missing`);
  return list.map((label: unknown) => {
    if (typeof label !== 'string' && typeof label !== 'number') throw new Error(`${name} must be strings`);
    return String(label);
  });
}

export function readSplit(value: unknown): SplitName | undefined {
  if (value === undefined || value === null || value === '') return undefined;
  const name = typeof value === 'string' ? value.toUpperCase() : '';
  if (name !== 'TRAIN' && name !== 'DEV' && name !== 'TEST') throw new Error('split must be train, dev or test');
  return name;
}

/** The parts of an item beside its text, as every one of our own exports keeps them. */
export function readRest(row: JsonObject): Omit<TextRecord, 'text' | 'id'> & { split?: SplitName } {
  const { textPair, choices, fields } = row;
  const split = readSplit(row['split']);
  return {
    ...(isGiven(textPair) && { textPair: requireText(textPair, 'textPair') }),
    ...(isGiven(choices) && { choices: readLabels(choices, 'choices') }),
    ...(isGiven(fields) && { fields: readFields(fields) }),
    ...(split && { split }),
  };
}

export function restOf({ textPair, choices, fields, split }: ExampleRecord): JsonObject {
  return {
    ...(textPair !== undefined && { textPair }),
    ...(choices !== undefined && { choices }),
    ...(fields !== undefined && { fields }),
    ...(split !== undefined && { split: split.toLowerCase() }),
  };
}

export function toLines(rows: readonly object[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
}

function readFields(value: unknown): JsonObject {
  if (!isObject(value)) throw new Error('fields must be an object');
  return value;
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}
