/** The base model's tokenizer and limits, for what is asked before there is a bundle: linting task files. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { TextTokenizer } from '../inference/types.js';
import { openTokenizer } from './tokenizer.js';

const modelConfig = z.object({ max_position_embeddings: z.int().positive() });

/** What `export-base` wrote down of the model: the trainer's ids of texts, [CLS], masks and [SEP] among them. */
const goldenRows = z.object({
  rows: z.array(z.object({ text: z.string(), ids: z.array(z.int()), maskPositions: z.array(z.int()) })),
});

export class BaseTokenizer implements TextTokenizer {
  private constructor(
    private readonly tokenizer: TextTokenizer,
    /** Tokens, special ones included. */
    readonly maxModelLength: number,
  ) {}

  /** Throws where the folder holds no base model: nothing can be served then. */
  static async open(baseModel: string): Promise<BaseTokenizer> {
    try {
      const tokenizer = openTokenizer(await readFile(join(baseModel, 'tokenizer.json'), 'utf8'));
      const config = modelConfig.parse(JSON.parse(await readFile(join(baseModel, 'config.json'), 'utf8')));
      await requireGoldenIds(baseModel, tokenizer);
      return new BaseTokenizer(tokenizer, config.max_position_embeddings);
    } catch (cause) {
      throw new Error(`the base model in ${baseModel} cannot be read: ${(cause as Error).message}`, { cause });
    }
  }

  encode(texts: string[]): Promise<number[][]> {
    return this.tokenizer.encode(texts);
  }

  tokenToId(token: string): number | undefined {
    return this.tokenizer.tokenToId(token);
  }
}

/** Throws where the folder's tokenizer is another model's. A folder without golden rows is taken as it is. */
async function requireGoldenIds(baseModel: string, tokenizer: TextTokenizer): Promise<void> {
  const file = join(baseModel, 'golden.json');
  if (!existsSync(file)) return;
  const { rows } = goldenRows.parse(JSON.parse(await readFile(file, 'utf8')));
  const ids = await tokenizer.encode(rows.map(({ text }) => text));
  rows.forEach((row, i) => {
    const special = new Set([0, ...row.maskPositions, row.ids.length - 1]);
    const expected = row.ids.filter((_, at) => !special.has(at));
    if (isDeepStrictEqual(ids[i]!.slice(0, expected.length), expected)) return;
    const text = row.text.slice(0, 20);
    throw new Error(`tokenizer.json is another model's: it gives "${text}" other ids than golden.json has`);
  });
}
