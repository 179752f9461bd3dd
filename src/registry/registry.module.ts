/** Model versions, the hosts that run them and the engine that serves them. Imports runtime, storage, inference, task. */
import { Module } from '@nestjs/common';
import { METRICS, type Metrics } from '../common/metrics/metrics.js';
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
import { MAX_QUEUED_TOKENS, RegistryObservation } from './observation.js';
import { ModelRegistry } from './versions.js';
import { ZeroShotBuilder } from './zero-shot.js';

const SERVICES = [ActivationService, BatchBudgets, Catalogue, ConvergenceService, ModelRegistry, ZeroShotBuilder];

@Module({
  providers: [
    {
      provide: HostPool,
      inject: [Config, METRICS],
      useFactory: ({ hosts, hostThreads, device, modelMemoryBytes }: Config, metrics: Metrics) =>
        new HostPool({ hosts, threads: hostThreads, device, memoryBytes: modelMemoryBytes }, metrics),
    },
    {
      provide: InferenceEngine,
      inject: [Config, METRICS],
      useFactory: ({ hosts, maxTextLength, cacheMb }: Config, metrics: Metrics) =>
        new InferenceEngine(
          {
            maxBatchTokens: UNMEASURED_BATCH_TOKENS,
            maxConcurrentBatches: hosts * JOBS_A_HOST,
            maxQueuedTokens: MAX_QUEUED_TOKENS,
            maxTextLength,
            cacheBytes: cacheMb * 2 ** 20,
          },
          metrics,
        ),
    },
    { provide: BaseTokenizer, inject: [Config], useFactory: ({ baseModel }: Config) => BaseTokenizer.open(baseModel) },
    RegistryObservation,
    RehearsalEngine,
    ...SERVICES,
  ],
  exports: [BaseTokenizer, InferenceEngine, ...SERVICES],
})
export class RegistryModule {}
