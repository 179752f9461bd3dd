import { readFileSync } from 'node:fs';
import { Tokenizer } from 'tokenizers';
import { describe, expect, it } from 'vitest';
import { render, withHypothesis } from '../../src/inference/render.js';
import { assemble, textsOf, Vocabulary, wordTokens } from '../../src/inference/tokenize.js';
import type { Encoding, TextTokenizer } from '../../src/inference/types.js';
import { canonicalDefinition, parseTask } from '../../src/task/definition.js';
import { labelsOf, validateItem } from '../../src/task/item.js';
import { normalise, splitGroup } from '../../src/task/keys.js';
import { inputOf } from '../../src/task/template.js';
import type { Item, TaskDefinition } from '../../src/task/types.js';

const vectors = (name: string): unknown => JSON.parse(readFileSync(`test/contract/${name}.json`, 'utf8'));

interface RenderingCase {
  definition: TaskDefinition;
  templates: string[];
  rows: { item: Item; hypothesis?: string; words: number[][]; encodings: Encoding[] }[];
}

const renderingCases = vectors('rendering') as RenderingCase[];

const library = Tokenizer.fromFile('models/base-zh/tokenizer.json');
const tokenizer: TextTokenizer = {
  encode: async (texts) =>
    (await library.encodeBatch(texts, { addSpecialTokens: false })).map((encoding) => encoding.getIds()),
  tokenToId: (token) => library.tokenToId(token) ?? undefined,
};

describe('keys', () => {
  const rows = vectors('keys') as { text: string; normalised: string; splitGroup: string }[];
  it.each(rows)('$text', (row) => {
    expect(normalise(row.text)).toBe(row.normalised);
    expect(splitGroup(row.text)).toBe(row.splitGroup);
  });
});

describe('rendering, id for id as the trainer', () => {
  for (const { definition, templates, rows } of renderingCases) {
    it.each(rows)(`${templates.join(' | ')}: $item.text`, async ({ item, hypothesis, words, encodings }) => {
      const own = definition.kind === 'multiple-choice';
      const spelled = own ? labelsOf(definition, item) : definition.labels.flatMap((label) => label.words);
      const pieces = templates.map((template) => withHypothesis(render(template, item), hypothesis));
      const vocabulary = new Vocabulary(tokenizer);
      await vocabulary.learn([...spelled, ...pieces.flatMap(textsOf)]);
      expect(wordTokens(spelled, vocabulary, 'labels')).toEqual(words);
      pieces.forEach((piece, i) => {
        expect(assemble(piece, vocabulary, words[0]!.length, definition.maxLength)).toEqual(encodings[i]);
      });
    });
  }

  it('of the input that other methods than PET see', () => {
    const given = renderingCases.filter(({ definition }) => definition.input !== undefined);
    expect(given.map(({ templates }) => templates[0])).toEqual(given.map(({ definition }) => inputOf(definition)));
    expect(given).toHaveLength(1);
  });

  it('takes definitions as parseTask writes them', () => {
    for (const { definition } of renderingCases) {
      expect(JSON.parse(canonicalDefinition(parseTask(JSON.stringify(definition))))).toEqual(definition);
    }
  });

  it('holds items that the service accepts', () => {
    for (const { definition, rows } of renderingCases) {
      for (const { item } of rows) {
        expect(() => validateItem(definition, item, { maxTextLength: 20_000 })).not.toThrow();
      }
    }
  });
});
