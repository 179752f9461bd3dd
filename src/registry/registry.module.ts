/** Model versions, the hosts that run them and the engine that serves them. Imports runtime, storage, inference, task. */
import { Module } from '@nestjs/common';
import { Config } from '../config/config.js';
import { InferenceEngine } from '../inference/engine.js';
import { JOBS_A_HOST } from '../runtime/host-process.js';
import { HostPool } from '../runtime/host-pool.js';
import { ActivationService } from './activation.js';
import { BaseTokenizer } from './base-tokenizer.js';
import { BatchBudgets, UNMEASURED_BATCH_TOKENS } from './batch-budget.js';
import { Catalogue } from './catalogue.js';
import { ConvergenceService } from './convergence.js';
import { RehearsalEngine } from './rehearsal.js';
import { ModelRegistry } from './versions.js';
import { ZeroShotBuilder } from './zero-shot.js';

/** About half a minute of work for one core and a small model: who comes later had better ask again. */
const MAX_QUEUED_TOKENS = 200_000;

const SERVICES = [ActivationService, BatchBudgets, Catalogue, ConvergenceService, ModelRegistry, ZeroShotBuilder];

@Module({
  providers: [
    {
      provide: HostPool,
      inject: [Config],
      useFactory: ({ hosts, hostThreads, device, modelMemoryBytes }: Config) =>
        new HostPool({ hosts, threads: hostThreads, device, memoryBytes: modelMemoryBytes }),
    },
    {
      provide: InferenceEngine,
      inject: [Config],
      useFactory: ({ hosts, maxTextLength, cacheMb }: Config) =>
        new InferenceEngine({
          maxBatchTokens: UNMEASURED_BATCH_TOKENS,
          maxConcurrentBatches: hosts * JOBS_A_HOST,
          maxQueuedTokens: MAX_QUEUED_TOKENS,
          maxTextLength,
          cacheBytes: cacheMb * 2 ** 20,
        }),
    },
    { provide: BaseTokenizer, inject: [Config], useFactory: ({ baseModel }: Config) => BaseTokenizer.open(baseModel) },
    RehearsalEngine,
    ...SERVICES,
  ],
  exports: [BaseTokenizer, InferenceEngine, ...SERVICES],
})
export class RegistryModule {}
