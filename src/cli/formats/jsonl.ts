/** Our own lines: `text`, `label` or `labels`, `textPair`, `choices`, `fields`, `split`. doccano's differ by little. */
import {
  type ExampleRecord,
  jsonEntries,
  readEach,
  readLabels,
  type ReadResult,
  readRest,
  requireText,
  restOf,
  type TextRecord,
  toLines,
} from './records.js';

export function readJsonl(content: string): ReadResult<ExampleRecord> {
  return readEach(jsonEntries(content), (entry) => {
    const row = entry();
    const labels = readLabels(row['labels'] ?? row['label'], 'label');
    return { text: requireText(row['text'], 'text'), labels, ...readRest(row) };
  });
}

/** Texts without labels; `id` is the producer's. */
export function readJsonlTexts(content: string): ReadResult<TextRecord> {
  return readEach(jsonEntries(content), (entry) => {
    const row = entry();
    const { split: _, ...rest } = readRest({ ...row, split: undefined });
    const { id } = row;
    const given = typeof id === 'string' || typeof id === 'number';
    return { ...(given && { id: String(id) }), text: requireText(row['text'], 'text'), ...rest };
  });
}

export function writeJsonl(examples: readonly ExampleRecord[]): string {
  return toLines(
    examples.map((example) => {
      const { text, labels } = example;
      return { text, ...(labels.length === 1 ? { label: labels[0] } : { labels }), ...restOf(example) };
    }),
  );
}

/** doccano's text classification: a number and a list of labels a line; columns it does not know are kept. */
export function writeDoccano(examples: readonly ExampleRecord[]): string {
  return toLines(examples.map((e, i) => ({ id: i + 1, text: e.text, label: e.labels, ...restOf(e) })));
}
