/**
 * Label Studio: a JSON array of tasks. The labels are the choices of the first annotation that was not cancelled;
 * predictions carry what the service says, with its confidence and version, and are no labels.
 */
import {
  type ExampleRecord,
  isObject,
  type JsonObject,
  type OutgoingRecord,
  readLabels,
  readRest,
  requireText,
  restOf,
} from './records.js';

export function isLabelStudio(row: JsonObject): boolean {
  return isObject(row['data']) && (Array.isArray(row['annotations']) || Array.isArray(row['completions']));
}

export function readLabelStudioRow(row: JsonObject): ExampleRecord | null {
  if (!isLabelStudio(row)) throw new Error('is no task with data and annotations');
  const data = row['data'] as JsonObject;
  const labels = labelsOf((row['annotations'] ?? row['completions']) as unknown[]);
  return labels && { text: requireText(data['text'], 'data.text'), labels, ...readRest(data) };
}

export function writeLabelStudioRow(record: OutgoingRecord, index: number): string {
  const { labels, prediction } = record;
  const task = {
    id: index + 1,
    data: { text: record.text, ...restOf(record) },
    annotations: labels === undefined ? [] : [{ result: choicesOf(labels) }],
    ...(prediction && {
      predictions: [
        {
          model_version: String(prediction.modelVersion),
          score: prediction.confidence,
          result: choicesOf(prediction.labels),
        },
      ],
    }),
  };
  return `${index === 0 ? '[\n' : ',\n'}${JSON.stringify(task)}`;
}

export const labelStudioEnd = (rows: number): string => (rows === 0 ? '[]\n' : '\n]\n');

const choicesOf = (choices: string[]) => [{ from_name: 'label', to_name: 'text', type: 'choices', value: { choices } }];

/** Null where nobody has answered yet. */
function labelsOf(annotations: unknown[]): string[] | null {
  const answered = annotations.filter(isObject).find((annotation) => annotation['was_cancelled'] !== true);
  const results = answered && Array.isArray(answered['result']) ? answered['result'].filter(isObject) : [];
  const choices = results.find((result) => result['type'] === 'choices');
  if (!choices) return null;
  return readLabels(isObject(choices['value']) ? choices['value']['choices'] : undefined, 'choices');
}
