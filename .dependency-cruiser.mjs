/**
 * The import table of the design (docs/architecture.md), enforced. `test/contract/imports.spec.ts` proves that a
 * forbidden import fails.
 */
const everywhere = ['common', 'config'];
const may = {
  api: ['access', 'learning', 'registry', 'inference', 'task'],
  stream: ['learning', 'registry', 'inference', 'task'],
  access: ['learning', 'storage'],
  backup: ['registry', 'storage'],
  cli: ['backup', 'task', 'launch'],
  learning: ['registry', 'inference', 'launch', 'storage', 'task'],
  registry: ['runtime', 'storage', 'inference', 'task'],
  launch: ['task'],
  runtime: ['inference'],
  inference: ['task'],
  task: [],
  storage: [],
  config: [],
  common: [],
};

const table = Object.entries(may).map(([module, allowed]) => ({
  name: `${module}-imports`,
  severity: 'error',
  comment: `src/${module} may import ${[...allowed, ...everywhere].join(', ')} alone`,
  from: {
    path: `^src/${module}/`,
    pathNot: ['\\.spec\\.ts$', ...(module === 'stream' ? ['^src/stream/embedded/'] : [])],
  },
  to: {
    path: '^src/',
    pathNot: [module, ...allowed, ...(module === 'common' ? [] : everywhere)].map((m) => `^src/${m}/`),
  },
}));

const only = (name, packages, where) => ({
  name,
  severity: 'error',
  from: { path: '^(src|migrations)/', pathNot: [...where, '\\.spec\\.ts$'] },
  to: { path: `node_modules/(${packages})(/|$)` },
});

export default {
  forbidden: [
    ...table,
    {
      name: 'embedded-stream-imports',
      severity: 'error',
      from: { path: '^src/stream/embedded/' },
      to: { path: '^src/(api|cli|launch|runtime)/' },
    },
    {
      name: 'runtime-types-only',
      severity: 'error',
      from: { path: '^src/runtime/', pathNot: '\\.spec\\.ts$' },
      to: { path: '^src/inference/', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'no-cycles',
      severity: 'error',
      from: { path: '^src/' },
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    only('onnxruntime-only-in-runtime', 'onnxruntime-node', ['^src/runtime/']),
    only('typeorm-only-in-storage', 'typeorm|@nestjs/typeorm', ['^src/storage/', '^migrations/']),
    only('prometheus-only-in-metrics', 'prom-client', ['^src/common/metrics/']),
    only('opentelemetry-only-in-tracing', '@opentelemetry', ['^src/common/tracing/']),
    only('s3-only-in-its-store', '@aws-sdk', ['^src/registry/s3-store\\.ts$']),
    only('kubernetes-only-in-launch', '@kubernetes/client-node', ['^src/launch/']),
    only('kafka-only-in-stream-kafka', 'kafkajs|kafkajs-snappy|lz4-napi', ['^src/stream/kafka/']),
    {
      name: 'no-nest-in-pure-modules',
      severity: 'error',
      from: { path: '^src/(task|inference)/' },
      to: { path: 'node_modules/@nestjs/' },
    },
    {
      name: 'nobody-imports-entry-points',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/(main|service)\\.ts$' },
      to: { path: '^src/(main|migrate|app\\.module)\\.ts$' },
    },
    { name: 'no-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
  },
};
