/** Prodigy: textcat (`label`, `answer`) and choice (`options`, `accept`); rows that were not accepted carry no label. */
import {
  type ExampleRecord,
  isObject,
  type JsonObject,
  type OutgoingRecord,
  readLabels,
  readRest,
  requireText,
  restOf,
  toLine,
} from './records.js';

export function isProdigy(row: JsonObject): boolean {
  return 'answer' in row && 'text' in row && ('accept' in row || 'label' in row);
}

export function readProdigyRow(row: JsonObject): ExampleRecord | null {
  if (!isProdigy(row)) throw new Error('has no answer with a label or accepted options');
  if (row['answer'] !== 'accept') return null;
  const rest = isObject(row['meta']) ? readRest(row['meta']) : {};
  return {
    text: requireText(row['text'], 'text'),
    labels: readLabels(row['accept'] ?? row['label'], 'accept'),
    ...rest,
  };
}

/** `names`: the task's labels, as options of a row that has no choices of its own. */
export function writeProdigyRow(record: OutgoingRecord, _: number, names: readonly string[]): string {
  return toLine({
    text: record.text,
    options: (record.choices ?? names).map((id) => ({ id, text: id })),
    accept: record.labels ?? [],
    answer: 'accept',
    meta: restOf(record),
  });
}
