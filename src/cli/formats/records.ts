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

/** On its way out: with what the service says of it, where it does; without labels where nobody has answered yet. */
export interface OutgoingRecord extends TextRecord {
  labels?: string[];
  split?: SplitName;
  prediction?: { labels: string[]; confidence: number; modelVersion: number };
}

/** What was read at a place (a line, or the number of the entry where the file is one array): a value, or why none. */
export type Entry<T> = { line: number; value: T } | { line: number; error: string };

export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Reads each entry on its own: one that is malformed becomes an error with its place, null is left out. */
export async function* readEach<S, T>(
  entries: AsyncIterable<Entry<S>>,
  read: (value: S) => T | null,
): AsyncGenerator<Entry<T>> {
  for await (const entry of entries) {
    if ('error' in entry) {
      yield entry;
      continue;
    }
    const { line } = entry;
    let value;
    try {
      value = read(entry.value);
    } catch (error) {
      yield { line, error: error instanceof Error ? error.message : String(error) };
      continue;
    }
    if (value !== null) yield { line, value };
  }
}

export function parseObject(line: string): JsonObject {
  const value: unknown = JSON.parse(line);
  if (!isObject(value)) throw new Error('is no JSON object');
  return value;
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

export function restOf({ textPair, choices, fields, split }: OutgoingRecord): JsonObject {
  return {
    ...(textPair !== undefined && { textPair }),
    ...(choices !== undefined && { choices }),
    ...(fields !== undefined && { fields }),
    ...(split !== undefined && { split: split.toLowerCase() }),
  };
}

export const toLine = (row: object): string => `${JSON.stringify(row)}\n`;

function readFields(value: unknown): JsonObject {
  if (!isObject(value)) throw new Error('fields must be an object');
  return value;
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}
