import { describe, expect, it } from 'vitest';
import { TINY_MODEL } from '../../test/fixtures/bundle.js';
import { BaseTokenizer } from './base-tokenizer.js';

describe('BaseTokenizer', () => {
  it('knows the tokens and the limit of the base model', async () => {
    const tokenizer = await BaseTokenizer.open(TINY_MODEL);
    expect(tokenizer.maxModelLength).toBe(512);
    expect(await tokenizer.encode(['好'])).toEqual([[tokenizer.tokenToId('好')]]);
  });

  it('says which folder holds no base model', async () => {
    await expect(BaseTokenizer.open('/nowhere')).rejects.toThrow('/nowhere');
  });
});
