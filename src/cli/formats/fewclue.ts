/** FewCLUE's own files: nine tasks, an object a line, told apart by their keys. */
import { Failure } from '../client.js';
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

export function isFewclue(row: JsonObject): boolean {
  const has = (...keys: string[]) => keys.every((key) => key in row);
  return (
    has('sentence', 'label') ||
    has('sentence1', 'sentence2') ||
    has('content', 'label') ||
    has('content', 'candidates') ||
    has('abst', 'keyword') ||
    (has('text', 'target', 'label') && isObject(row['target']))
  );
}

export function readFewclueRow(row: JsonObject): ExampleRecord | null {
  if (!isFewclue(row)) throw new Error('has the keys of none of the nine tasks');
  // OCNLI marks rows on which its annotators did not agree.
  if (row['label'] === '-') return null;
  const { split, fields } = readRest({ split: row['split'], fields: row['fields'] });
  return { ...itemOf(row), ...(fields && { fields }), ...(split && { split }) };
}

/** What one label a text can say; texts of several labels have no place in these files. */
export function writeFewclueRow(record: OutgoingRecord, index: number): string {
  const [label, ...more] = record.labels ?? [];
  if (label === undefined || more.length > 0) throw new Failure('FewCLUE files hold one label a text');
  const { textPair, choices, ...rest } = restOf(record);
  const { text } = record;
  if (choices !== undefined) {
    if (textPair !== undefined) throw new Failure('FewCLUE files hold choices or a second sentence, not both');
    return toLine({ id: index, candidates: choices, content: text, answer: record.choices!.indexOf(label), ...rest });
  }
  if (textPair !== undefined) return toLine({ id: index, sentence1: text, sentence2: textPair, label, ...rest });
  return toLine({ id: index, sentence: text, label, ...rest });
}

function itemOf(row: JsonObject): ExampleRecord {
  if ('candidates' in row) {
    const choices = readLabels(row['candidates'], 'candidates');
    const answer = choices[Number(row['answer'])];
    if (answer === undefined) throw new Error('answer is not the index of a candidate');
    return { text: requireText(row['content'], 'content'), choices, labels: [answer] };
  }
  // TNEWS and IFLYTEK number their labels and describe them beside.
  const labels = readLabels(row['label_desc'] ?? row['label_des'] ?? row['label'], 'label');
  if ('abst' in row) {
    return {
      text: requireText(row['abst'], 'abst'),
      fields: { keywords: readLabels(row['keyword'], 'keyword').join('，') },
      labels,
    };
  }
  if (isObject(row['target'])) return { text: requireText(row['text'], 'text'), fields: row['target'], labels };
  if ('sentence1' in row) {
    const textPair = requireText(row['sentence2'], 'sentence2');
    return { text: requireText(row['sentence1'], 'sentence1'), textPair, labels };
  }
  return { text: requireText(row['sentence'] ?? row['content'], 'sentence'), labels };
}
