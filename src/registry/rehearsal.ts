/**
 * An engine beside the one that serves, for golden texts and prior matching: a busy queue must not make a good bundle
 * look bad, and what is rehearsed must not make requests wait in line behind it.
 */
import { Inject, Injectable } from '@nestjs/common';
import { Config } from '../config/config.js';
import { InferenceEngine } from '../inference/engine.js';
import { UNMEASURED_BATCH_TOKENS } from './batch-budget.js';

@Injectable()
export class RehearsalEngine extends InferenceEngine {
  constructor(@Inject(Config) { maxTextLength }: Config) {
    super({
      maxBatchTokens: UNMEASURED_BATCH_TOKENS,
      // The hosts may be serving other tasks.
      maxConcurrentBatches: 1,
      maxQueuedTokens: Number.POSITIVE_INFINITY,
      maxTextLength,
    });
  }
}
