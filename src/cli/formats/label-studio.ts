/** Label Studio: a JSON array of tasks; the labels are the choices of the first annotation that was not cancelled. */
import {
  type ExampleRecord,
  isObject,
  jsonEntries,
  type JsonObject,
  readEach,
  readLabels,
  type ReadResult,
  readRest,
  requireText,
  restOf,
} from './records.js';

export function isLabelStudio(row: JsonObject): boolean {
  return isObject(row['data']) && (Array.isArray(row['annotations']) || Array.isArray(row['completions']));
}

export function readLabelStudio(content: string): ReadResult<ExampleRecord> {
  return readEach(jsonEntries(content), (entry) => {
    const row = entry();
    if (!isLabelStudio(row)) throw new Error('is no task with data and annotations');
    const data = row['data'] as JsonObject;
    const labels = labelsOf((row['annotations'] ?? row['completions']) as unknown[]);
    return labels && { text: requireText(data['text'], 'data.text'), labels, ...readRest(data) };
  });
}

export function writeLabelStudio(examples: readonly ExampleRecord[]): string {
  const tasks = examples.map((example, i) => ({
    id: i + 1,
    data: { text: example.text, ...restOf(example) },
    annotations: [
      { result: [{ from_name: 'label', to_name: 'text', type: 'choices', value: { choices: example.labels } }] },
    ],
  }));
  return `[\n${tasks.map((task) => JSON.stringify(task)).join(',\n')}\n]\n`;
}

/** Null where nobody has answered yet. */
function labelsOf(annotations: unknown[]): string[] | null {
  const answered = annotations.filter(isObject).find((annotation) => annotation['was_cancelled'] !== true);
  const results = answered && Array.isArray(answered['result']) ? answered['result'].filter(isObject) : [];
  const choices = results.find((result) => result['type'] === 'choices');
  if (!choices) return null;
  return readLabels(isObject(choices['value']) ? choices['value']['choices'] : undefined, 'choices');
}
