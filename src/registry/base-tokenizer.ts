/** The base model's tokenizer and limits, for what is asked before there is a bundle: linting task files. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { TextTokenizer } from '../inference/types.js';
import { openTokenizer } from './tokenizer.js';

const modelConfig = z.object({ max_position_embeddings: z.int().positive() });

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
