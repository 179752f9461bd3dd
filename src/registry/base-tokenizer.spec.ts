import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { TINY_MODEL } from '../../test/fixtures/bundle.js';
import { BaseTokenizer } from './base-tokenizer.js';

describe('BaseTokenizer', () => {
  it('knows the tokens and the limit of the base model', async () => {
    const tokenizer = await BaseTokenizer.open(TINY_MODEL);
    expect(tokenizer.maxModelLength).toBe(512);
    expect(await tokenizer.encode(['好'])).toEqual([[tokenizer.tokenToId('好')]]);
  });

  it("takes the shipped base model's tokenizer, and refuses another one of the same size in its place", async () => {
    const shipped = resolve('models/base-zh');
    await expect(BaseTokenizer.open(shipped)).resolves.toBeDefined();
    const folder = await mkdtemp(join(tmpdir(), 'fewloop-base-'));
    try {
      for (const file of ['config.json', 'golden.json']) await copyFile(join(shipped, file), join(folder, file));
      const tokenizer = JSON.parse(await readFile(join(shipped, 'tokenizer.json'), 'utf8')) as {
        model: { vocab: Record<string, number> };
      };
      const { vocab } = tokenizer.model;
      [vocab['好'], vocab['差']] = [vocab['差']!, vocab['好']!];
      await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
      await expect(BaseTokenizer.open(folder)).rejects.toThrow("another model's");
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('says which folder holds no base model', async () => {
    await expect(BaseTokenizer.open('/nowhere')).rejects.toThrow('/nowhere');
  });
});
