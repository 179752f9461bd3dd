/** Linting against the base model that new versions start from. */
import { Inject, Injectable } from '@nestjs/common';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Config } from '../config/config.js';
import type { TextTokenizer } from '../inference/types.js';
import { openTokenizer } from '../registry/tokenizer.js';
import { lintTask, type LintFinding, type MeasuredPrior } from '../task/lint.js';
import type { TaskDefinition } from '../task/types.js';

interface BaseModel {
  tokenizer: TextTokenizer;
  maxLength: number;
}

@Injectable()
export class TaskLinter {
  private loading: Promise<BaseModel> | undefined;

  constructor(@Inject(Config) private readonly config: Config) {}

  async lint(definition: TaskDefinition, measured: MeasuredPrior[] = []): Promise<LintFinding[]> {
    this.loading ??= this.load();
    const { tokenizer, maxLength } = await this.loading;
    return lintTask(definition, tokenizer, maxLength, measured);
  }

  private async load(): Promise<BaseModel> {
    const read = (file: string): Promise<string> => readFile(join(this.config.baseModel, file), 'utf8');
    const { max_position_embeddings: maxLength } = JSON.parse(await read('config.json')) as Record<string, number>;
    return { tokenizer: openTokenizer(await read('tokenizer.json')), maxLength: maxLength ?? 512 };
  }
}
