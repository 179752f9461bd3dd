/** Model versions, the hosts that run them and the engine that serves them. Imports runtime, storage, inference, task. */
import { Module } from '@nestjs/common';
import { join } from 'node:path';
import { isGpu } from '../common/devices.js';
import { METRICS, type Metrics } from '../common/metrics/metrics.js';
import { Config } from '../config/config.js';
import { AnswerTap } from '../inference/answer-tap.js';
import { InferenceEngine } from '../inference/engine.js';
import { ServedWindows } from '../inference/served-windows.js';
import { JOBS_A_HOST } from '../runtime/host-process.js';
import { HostPool } from '../runtime/host-pool.js';
import { claimsFolder } from '../runtime/memory-claims.js';
import { PackedGraphs } from '../runtime/packed-graphs.js';
import { ActivationService } from './activation.js';
import { BaseTokenizer } from './base-tokenizer.js';
import { BatchBudgets, UNMEASURED_BATCH_TOKENS } from './batch-budget.js';
import { BUNDLE_STORE } from './bundle-store.js';
import { Bundles } from './bundles.js';
import { Catalogue } from './catalogue.js';
import { ConvergenceService } from './convergence.js';
import { refuseUnusableDevices } from './device-check.js';
import { findLayout, HostLayout } from './host-layout.js';
import { machine } from './machine.js';
import { openBundleStore } from './open-store.js';
import { RehearsalEngine } from './rehearsal.js';
import { MAX_QUEUED_TOKENS, RegistryObservation } from './observation.js';
import { ModelRegistry } from './versions.js';
import { ZeroShotBuilder } from './zero-shot.js';

const SERVICES = [
  ActivationService,
  BatchBudgets,
  Bundles,
  Catalogue,
  ConvergenceService,
  ModelRegistry,
  ZeroShotBuilder,
];

@Module({
  providers: [
    { provide: BUNDLE_STORE, inject: [Config], useFactory: openBundleStore },
    {
      provide: HostLayout,
      inject: [Config],
      useFactory: async (config: Config) => {
        await refuseUnusableDevices(config);
        return findLayout(config);
      },
    },
    {
      provide: HostPool,
      inject: [Config, HostLayout, METRICS],
      useFactory: async (
        { dataDir, device, modelMemoryBytes: memoryBytes }: Config,
        { hosts, threads }: HostLayout,
        metrics: Metrics,
      ) => {
        // A GPU has memory of its own.
        const packed = isGpu(device)
          ? undefined
          : new PackedGraphs(join(dataDir, 'packed-graphs'), await machine(device));
        const shared = { claimsFolder: claimsFolder(dataDir), packed };
        return new HostPool({ hosts, threads, device, memoryBytes, ...shared }, metrics);
      },
    },
    ServedWindows,
    AnswerTap,
    {
      provide: InferenceEngine,
      inject: [Config, HostLayout, METRICS, ServedWindows, AnswerTap],
      useFactory: (
        { maxTextLength, cacheMb }: Config,
        { hosts }: HostLayout,
        metrics: Metrics,
        windows: ServedWindows,
        tap: AnswerTap,
      ) =>
        new InferenceEngine(
          {
            maxBatchTokens: UNMEASURED_BATCH_TOKENS,
            maxConcurrentBatches: hosts * JOBS_A_HOST,
            maxQueuedTokens: MAX_QUEUED_TOKENS,
            maxTextLength,
            cacheBytes: cacheMb * 2 ** 20,
            windows,
            tap,
          },
          metrics,
        ),
    },
    { provide: BaseTokenizer, inject: [Config], useFactory: ({ baseModel }: Config) => BaseTokenizer.open(baseModel) },
    RegistryObservation,
    RehearsalEngine,
    ...SERVICES,
  ],
  exports: [AnswerTap, BaseTokenizer, InferenceEngine, ServedWindows, ...SERVICES],
})
export class RegistryModule {}
