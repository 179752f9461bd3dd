import { defineConfig } from 'vitest/config';

// What is awaited may take its time where two cores do other work besides: an installation, a trainer.
const PATIENT = { poll: { timeout: 10_000 } };

// Vite reads experimentalDecorators and emitDecoratorMetadata from tsconfig.json, so Nest's injection works untransformed.
const project = (name: string, include: string[], extra: Record<string, unknown> = {}) => ({
  test: { name, include, pool: 'forks' as const, maxWorkers: 2, testTimeout: 60_000, expect: PATIENT, ...extra },
});

// V8 lets its young generation grow by tens of MiB a step under load: what a test says of memory would be that.
const SMALL_YOUNG_GENERATION = ['--max-semi-space-size=2'];

const service = {
  globalSetup: ['test/fixtures/database.ts'],
  hookTimeout: 120_000,
  maxWorkers: 1,
};

export default defineConfig({
  test: {
    projects: [
      project('unit', ['src/**/*.spec.ts', 'scripts/**/*.spec.ts']),
      project('contract', ['test/contract/**/*.spec.ts']),
      project('integration', ['test/integration/**/*.spec.ts'], {
        ...service,
        globalSetup: [...service.globalSetup, 'test/fixtures/kafka-broker.ts'],
        execArgv: SMALL_YOUNG_GENERATION,
      }),
      project('faults', ['test/faults/**/*.spec.ts'], { ...service, testTimeout: 300_000 }),
      // By hand, with KUBE_BIN: test/kubernetes/.
      project('kubernetes', ['test/kubernetes/**/*.spec.ts'], { ...service, testTimeout: 300_000 }),
      // Each file has services and folders of its own, and mostly waits for one training run after the other.
      project('e2e', ['test/e2e/**/*.spec.ts'], {
        ...service,
        maxWorkers: 2,
        testTimeout: 900_000,
        hookTimeout: 300_000,
      }),
    ],
  },
});
