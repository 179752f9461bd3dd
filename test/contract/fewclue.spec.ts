/** FewCLUE's files and task files, read alike by `fewloop import` and by the trainer's benchmark; `test_fewclue.py` is the other half. */
import { readdirSync, readFileSync } from 'node:fs';
import { Tokenizer } from 'tokenizers';
import { describe, expect, it } from 'vitest';
import { readFewclueRow } from '../../src/cli/formats/fewclue.js';
import { canonicalDefinition, parseTask } from '../../src/task/definition.js';
import { lintTask } from '../../src/task/lint.js';
import { requireSupported } from '../../src/task/support.js';
import type { TaskDefinition } from '../../src/task/types.js';

interface Vectors {
  rows: { line: object; row: ({ label: string } & Record<string, unknown>) | null }[];
  taskFile: string;
  definition: TaskDefinition;
}

const vectors = JSON.parse(readFileSync('test/contract/fewclue.json', 'utf8')) as Vectors;

describe("FewCLUE's files", () => {
  it.each(vectors.rows)('$line', ({ line, row }) => {
    const { labels, ...item } = readFewclueRow(line as Record<string, unknown>) ?? { labels: null };
    expect(labels && { ...item, label: labels[0] }).toEqual(row);
  });
});

describe('task files', () => {
  it('are definitions with the same defaults in both languages', () => {
    expect(JSON.parse(canonicalDefinition(parseTask(vectors.taskFile)))).toEqual(vectors.definition);
  });
});

describe('examples/fewclue', () => {
  const library = Tokenizer.fromFile('models/base-zh/tokenizer.json');
  const speller = {
    encode: async (texts: string[]) =>
      (await library.encodeBatch(texts, { addSpecialTokens: false })).map((encoding) => encoding.getIds()),
    tokenToId: (token: string) => library.tokenToId(token) ?? undefined,
  };
  const files = readdirSync('examples/fewclue').filter((file) => file.endsWith('.yaml'));

  it('are nine', () => {
    expect(files).toHaveLength(9);
  });

  it.each(files)('%s lints clean, and has three templates or more', async (file) => {
    const definition = parseTask(readFileSync(`examples/fewclue/${file}`, 'utf8'));
    requireSupported(definition);
    expect(`${definition.name}.yaml`).toBe(file);
    expect(definition.templates.length).toBeGreaterThanOrEqual(3);
    expect(definition.labels.every((label) => label.description !== undefined)).toBe(true);
    const findings = await lintTask(definition, speller, 512);
    // What is left is a reminder that CSL's and CLUEWSC's items bring fields of their own.
    expect(findings.filter(({ message }) => !message.includes('every item must bring it'))).toEqual([]);
  });
});
