import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { TINY_MODEL } from '../../test/fixtures/bundle.js';
import { openTokenizer } from './tokenizer.js';

describe('openTokenizer', async () => {
  const json = await readFile(join(TINY_MODEL, 'tokenizer.json'), 'utf8');

  it('gives ids of plain text, without special tokens', async () => {
    const tokenizer = openTokenizer(json);
    const [one, none] = await tokenizer.encode(['很好', '']);
    expect(one).toEqual(['很', '好'].map((token) => tokenizer.tokenToId(token)));
    expect(none).toEqual([]);
    expect(await tokenizer.encode([])).toEqual([]);
    expect(tokenizer.tokenToId('no such token')).toBeUndefined();
  });

  it('neither cuts nor pads, whatever the file says', async () => {
    const settings = {
      truncation: { direction: 'Right', max_length: 4, strategy: 'LongestFirst', stride: 0 },
      padding: {
        strategy: { Fixed: 16 },
        direction: 'Right',
        pad_to_multiple_of: null,
        pad_id: 0,
        pad_type_id: 0,
        pad_token: '[PAD]',
      },
    };
    const tokenizer = openTokenizer(JSON.stringify({ ...(JSON.parse(json) as object), ...settings }));
    const [ids] = await tokenizer.encode(['好'.repeat(9)]);
    expect(ids).toHaveLength(9);
  });

  it('is one for all who use the same file', () => {
    expect(openTokenizer(json)).toBe(openTokenizer(json));
    expect(openTokenizer(`${json} `)).not.toBe(openTokenizer(json));
  });

  it('throws where the file is no tokenizer', () => {
    expect(() => openTokenizer('{}')).toThrow(/Model/u);
  });
});
