/** Our own lines: `text`, `label` or `labels`, `textPair`, `choices`, `fields`, `split`. doccano's differ by little. */
import {
  type ExampleRecord,
  type JsonObject,
  type OutgoingRecord,
  readLabels,
  readRest,
  requireText,
  restOf,
  type TextRecord,
  toLine,
} from './records.js';

export function readJsonlRow(row: JsonObject): ExampleRecord {
  const labels = readLabels(row['labels'] ?? row['label'], 'label');
  return { text: requireText(row['text'], 'text'), labels, ...readRest(row) };
}

/** Texts without labels; `id` is the producer's. */
export function readJsonlText(row: JsonObject): TextRecord {
  const { split: _, ...rest } = readRest({ ...row, split: undefined });
  const { id } = row;
  const given = typeof id === 'string' || typeof id === 'number';
  return { ...(given && { id: String(id) }), text: requireText(row['text'], 'text'), ...rest };
}

export function writeJsonlRow(record: OutgoingRecord): string {
  const { text, labels, prediction } = record;
  const given = labels && (labels.length === 1 ? { label: labels[0] } : { labels });
  return toLine({ text, ...given, ...restOf(record), ...(prediction && { prediction }) });
}

/** doccano's text classification: a number and a list of labels a line; columns it does not know are kept. */
export function writeDoccanoRow(record: OutgoingRecord, index: number): string {
  return toLine({ id: index + 1, text: record.text, label: record.labels ?? [], ...restOf(record) });
}
