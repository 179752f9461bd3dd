/** Prodigy: textcat (`label`, `answer`) and choice (`options`, `accept`); rows that were not accepted carry no label. */
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
  toLines,
} from './records.js';

export function isProdigy(row: JsonObject): boolean {
  return 'answer' in row && 'text' in row && ('accept' in row || 'label' in row);
}

export function readProdigy(content: string): ReadResult<ExampleRecord> {
  return readEach(jsonEntries(content), (entry) => {
    const row = entry();
    if (!isProdigy(row)) throw new Error('has no answer with a label or accepted options');
    if (row['answer'] !== 'accept') return null;
    const rest = isObject(row['meta']) ? readRest(row['meta']) : {};
    return {
      text: requireText(row['text'], 'text'),
      labels: readLabels(row['accept'] ?? row['label'], 'accept'),
      ...rest,
    };
  });
}

export function writeProdigy(examples: readonly ExampleRecord[]): string {
  const names = [...new Set(examples.flatMap((example) => example.labels))].sort();
  return toLines(
    examples.map((example) => ({
      text: example.text,
      options: (example.choices ?? names).map((id) => ({ id, text: id })),
      accept: example.labels,
      answer: 'accept',
      meta: restOf(example),
    })),
  );
}
