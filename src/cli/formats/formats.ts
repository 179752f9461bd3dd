/** The formats by name, and which of them a file is in. */
import { extname } from 'node:path';
import { readCsv, readCsvTexts } from './csv.js';
import { isFewclue, readFewclue, writeFewclue } from './fewclue.js';
import { readJsonl, readJsonlTexts, writeDoccano, writeJsonl } from './jsonl.js';
import { isLabelStudio, readLabelStudio, writeLabelStudio } from './label-studio.js';
import { isProdigy, readProdigy, writeProdigy } from './prodigy.js';
import {
  type ExampleRecord,
  jsonEntries,
  type JsonObject,
  linesOf,
  readEach,
  type ReadResult,
  type TextRecord,
} from './records.js';

export const EXAMPLE_READERS = {
  jsonl: readJsonl,
  csv: readCsv,
  fewclue: readFewclue,
  'label-studio': readLabelStudio,
  doccano: readJsonl,
  prodigy: readProdigy,
} satisfies Record<string, (content: string) => ReadResult<ExampleRecord>>;

export const EXAMPLE_WRITERS = {
  jsonl: writeJsonl,
  'label-studio': writeLabelStudio,
  doccano: writeDoccano,
  prodigy: writeProdigy,
  fewclue: writeFewclue,
} satisfies Record<string, (examples: readonly ExampleRecord[]) => string>;

export const TEXT_READERS = {
  jsonl: readJsonlTexts,
  csv: readCsvTexts,
  lines: readLines,
} satisfies Record<string, (content: string) => ReadResult<TextRecord>>;

export type ExampleFormat = keyof typeof EXAMPLE_READERS;
export type TextFormat = keyof typeof TEXT_READERS;

/** By the first entry that can be read: a malformed one elsewhere does not matter. */
export function detectExamples(file: string, content: string): ExampleFormat {
  const row = firstObject(content);
  if (row === null) return 'csv';
  if (isLabelStudio(row)) return 'label-studio';
  if (isProdigy(row)) return 'prodigy';
  if (isFewclue(row)) return 'fewclue';
  return extname(file) === '.csv' ? 'csv' : 'jsonl';
}

export function detectTexts(file: string, content: string): TextFormat {
  if (extname(file) === '.csv') return 'csv';
  return firstObject(content) === null ? 'lines' : 'jsonl';
}

function firstObject(content: string): JsonObject | null {
  if (!/^\s*[[{]/u.test(content)) return null;
  const entries = content.trimStart().startsWith('[') ? arrayEntries(content) : jsonEntries(content).slice(0, 100);
  return readEach(entries, (entry) => entry()).records[0]?.value ?? null;
}

/** A line of plain text may begin with a bracket as well. */
function arrayEntries(content: string): ReturnType<typeof jsonEntries> {
  try {
    return jsonEntries(content).slice(0, 1);
  } catch {
    return [];
  }
}

function readLines(content: string): ReadResult<TextRecord> {
  return { records: linesOf(content).map(({ line, value }) => ({ line, value: { text: value } })), errors: [] };
}
