import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { characterTokenizer } from '../../test/fixtures/memory-model.js';
import type { Item } from '../task/types.js';
import { render } from './render.js';
import { assemble, cutLengths, textsOf, Vocabulary, wordTokens } from './tokenize.js';

async function encode(template: string, item: Item, masks = 1, maxLength = 16) {
  const pieces = render(template, item);
  const vocabulary = new Vocabulary(characterTokenizer);
  await vocabulary.learn(textsOf(pieces));
  return assemble(pieces, vocabulary, masks, maxLength);
}

describe('cutLengths', () => {
  it('is trimming the longest one by one, of equals the later', () => {
    const slow = (lengths: number[], budget: number) => {
      const cut = [...lengths];
      while (cut.reduce((a, b) => a + b, 0) > budget) cut[cut.lastIndexOf(Math.max(...cut))]!--;
      return cut;
    };
    fc.assert(
      fc.property(fc.array(fc.nat(30), { maxLength: 5 }), fc.nat(60), (lengths, budget) => {
        expect(cutLengths(lengths, budget)).toEqual(slow(lengths, budget));
      }),
    );
  });
});

describe('rendering', () => {
  const template = fc.constantFrom('{text}很{mask}', '{mask}', '“{text}”，{mask}“{textPair}”', '{text|blank:#x#}。');
  const text = fc.string({ unit: 'grapheme', maxLength: 60 });

  it('never cuts masks and literals, never goes over the length, for any well-formed text', async () => {
    await fc.assert(
      fc.asyncProperty(template, text, text, fc.integer({ min: 1, max: 3 }), async (t, a, b, masks) => {
        const encoding = await encode(t, { text: `${a}#x#${b}`, textPair: b }, masks);
        expect(encoding.ids.length).toBeLessThanOrEqual(16);
        expect(encoding.ids[0]).toBe(2);
        expect(encoding.ids.at(-1)).toBe(3);
        expect(encoding.maskPositions).toHaveLength(masks);
        for (const position of encoding.maskPositions) expect(encoding.ids[position]).toBe(4);
        expect(encoding.ids.filter((id) => id === 4)).toHaveLength(masks);
      }),
    );
  });

  it('a text that spells a special token does not become one', async () => {
    const { ids, maskPositions } = await encode('{text}{mask}', { text: '[MASK][SEP]好' });
    expect(ids).toEqual([2, 1, 1, 10 + '好'.codePointAt(0)!, 4, 3]);
    expect(maskPositions).toEqual([4]);
  });

  it('refuses a template without room, a missing field, an absent marker', async () => {
    await expect(encode('一二三四五六七八{mask}{text}', { text: 'x' }, 1, 8)).rejects.toMatchObject({
      code: 'BAD_INPUT',
    });
    expect(() => render('{title}', { text: 'x' })).toThrow(expect.objectContaining({ field: 'fields.title' }));
    expect(() => render('{text|blank:#x#}', { text: 'x' })).toThrow(expect.objectContaining({ field: 'text' }));
  });

  it('refuses label words it cannot spell', async () => {
    const vocabulary = new Vocabulary(characterTokenizer);
    await vocabulary.learn(['好', '不好', '😀', '', '好😀']);
    expect(wordTokens(['好'], vocabulary, 'labels')).toHaveLength(1);
    expect(wordTokens(['好😀'], vocabulary, 'labels')[0]?.[1]).toBe(vocabulary.unknown);
    for (const words of [['好', '不好'], ['😀'], ['']]) {
      expect(() => wordTokens(words, vocabulary, 'labels')).toThrow(expect.objectContaining({ field: 'labels' }));
    }
  });
});
