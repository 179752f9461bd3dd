/** The manifests of k8s/ speak of what there is: variables, ports, paths, metrics, images, labels, rights. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';

import { DESCRIPTIONS } from '../../src/common/metrics/descriptions.js';
import { readEnvironment, environment } from '../../src/config/environment.js';
import { hasPromtool, promtool } from '../fixtures/operations.js';

const ROOT = path.resolve(import.meta.dirname, '../../k8s');

interface Container {
  image: string;
  command?: string[];
  ports?: { name: string; containerPort: number }[];
  env?: { name: string; value: string }[];
  envFrom?: { configMapRef?: { name: string } }[];
  startupProbe?: Probe;
  readinessProbe?: Probe;
  livenessProbe?: Probe;
  resources: { requests: Record<string, string>; limits: Record<string, string> };
  securityContext: object;
  volumeMounts: { name: string }[];
}
interface Probe {
  httpGet: { path: string; port: string };
}
interface Pod {
  containers: Container[];
  securityContext: object;
  automountServiceAccountToken: boolean;
  serviceAccountName?: string;
  volumes: { name: string }[];
}
interface Manifest {
  kind: string;
  metadata: { name: string; labels?: Record<string, string> };
  spec: unknown;
  data?: Record<string, string>;
  configMapGenerator?: { name: string; literals: string[] }[];
  images?: { name: string; newName: string; newTag: string }[];
  resources?: string[];
  components?: string[];
  rules?: { resources: string[]; verbs: string[] }[];
}

const files = readdirSync(ROOT, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.yaml'));
const manifests: { file: string; manifest: Manifest }[] = files.flatMap((file) =>
  parseAllDocuments(readFileSync(path.join(ROOT, file), 'utf8'), { merge: true }).map((document) => {
    if ('errors' in document && document.errors.length > 0) throw new Error(`${file}: ${document.errors[0]?.message}`);
    return { file, manifest: ('toJS' in document ? document.toJS() : null) as Manifest };
  }),
);
const ofKind = (kind: string) => manifests.map(({ manifest }) => manifest).filter((one) => one.kind === kind);
const templateOf = (manifest: Manifest) =>
  (manifest.spec as { template: { metadata: { labels: Record<string, string> }; spec: Pod } }).template;
const workloads = [...ofKind('Deployment'), ...ofKind('Job')];
const literals = manifests.flatMap(({ manifest }) =>
  (manifest.configMapGenerator ?? []).flatMap((map) => map.literals),
);
const literal = (line: string): [string, string] => [
  line.slice(0, line.indexOf('=')),
  line.slice(line.indexOf('=') + 1),
];

it('every file is of a kustomization that is reached from an overlay', () => {
  const reached = new Set<string>();
  const visit = (folder: string): void => {
    const file = path.join(folder, 'kustomization.yaml');
    const own = manifests.find((one) => one.file === file)?.manifest;
    if (own === undefined) throw new Error(`there is no ${file}`);
    reached.add(file);
    for (const entry of [...(own.resources ?? []), ...(own.components ?? [])]) {
      const target = path.join(folder, entry);
      if (entry.endsWith('.yaml')) reached.add(target);
      else visit(target);
    }
  };
  for (const overlay of ['cpu', 'gpu', 'kafka']) visit(path.join('overlays', overlay));
  expect(files.filter((file) => !reached.has(file))).toEqual(['prometheus-adapter.yaml']);
});

it('every variable is one that the service reads, with a value that it takes', () => {
  const known = new Set(Object.values(environment).map(({ name }) => name));
  const own = workloads.flatMap((one) => templateOf(one).spec.containers.flatMap(({ env = [] }) => env));
  const all = [...literals.map(literal), ...own.map(({ name, value }): [string, string] => [name, value])];
  expect(all.length).toBeGreaterThan(15);
  expect(all.map(([name]) => name).filter((name) => !known.has(name))).toEqual([]);
  for (const [name, value] of all) {
    expect(() => readEnvironment({ [name]: value }), `${name}=${value}`).not.toThrow();
  }
  const patched = files.flatMap((file) =>
    [...readFileSync(path.join(ROOT, file), 'utf8').matchAll(/name: (FEWLOOP_\w+)/gu)].map(([, name = '']) => name),
  );
  expect(patched).toContain('FEWLOOP_DEVICE');
  expect(patched.filter((name) => !known.has(name))).toEqual([]);
});

describe.each(workloads.map((one) => [`${one.kind} ${one.metadata.name}`, one] as const))('%s', (_, workload) => {
  const { metadata, spec } = templateOf(workload);
  const [container] = spec.containers as [Container];

  it('selects its own pods, and has the labels that policies and monitors go by', () => {
    const selector = (workload.spec as { selector?: { matchLabels: object } }).selector?.matchLabels ?? {};
    expect(metadata.labels).toMatchObject(selector);
    expect(workload.metadata.labels).toEqual(metadata.labels);
    expect(metadata.labels['app.kubernetes.io/name']).toBe('fewloop');
    expect(['api', 'stream', 'trainer', 'migrate']).toContain(metadata.labels['app.kubernetes.io/component']);
  });

  it('is restricted, has what it asks for, and mounts what it has', () => {
    expect(spec.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } });
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
    expect(Object.keys(container.resources.requests)).toEqual(['cpu', 'memory']);
    expect(container.resources.limits).toHaveProperty('memory');
    const names = (list: { name: string }[]) => list.map(({ name }) => name).toSorted();
    expect(names(container.volumeMounts)).toEqual(names(spec.volumes));
    expect(spec.automountServiceAccountToken).toBe(metadata.labels['app.kubernetes.io/component'] === 'trainer');
  });

  it('runs the service’s image, and what there is in it', () => {
    expect(container.image).toBe('fewloop-service');
    const entry = (container.command?.at(-1) ?? 'main.js').replace('/app/dist/src/', '').replace(/\.js$/u, '.ts');
    expect(readdirSync(path.join(ROOT, '../src'))).toContain(entry);
  });

  it.runIf(workload.kind === 'Deployment')('is probed where the service answers', () => {
    const port = Number(new Map(literals.map(literal)).get('PORT'));
    expect(container.ports).toEqual([{ name: 'http', containerPort: port }]);
    const controller = readFileSync(path.join(ROOT, '../src/api/health.controller.ts'), 'utf8');
    for (const probe of [container.startupProbe, container.readinessProbe, container.livenessProbe]) {
      expect(probe?.httpGet.port).toBe('http');
      const [, folder, name] = probe?.httpGet.path.split('/') ?? [];
      expect(controller).toContain(`@Controller('${folder}')`);
      expect(controller).toContain(`@Get('${name}')`);
    }
  });
});

it('what selects pods finds the Deployment of its component', () => {
  const components = ofKind('Deployment').map((one) => templateOf(one).metadata.labels['app.kubernetes.io/component']);
  const name = 'app.kubernetes.io/component';
  const selectors = [
    ...ofKind('Service').map(({ spec }) => (spec as { selector: Record<string, string> }).selector),
    ...ofKind('PodDisruptionBudget').map(
      ({ spec }) => (spec as { selector: { matchLabels: Record<string, string> } }).selector.matchLabels,
    ),
  ];
  expect(selectors.length).toBeGreaterThan(4);
  for (const selector of selectors) expect(components).toContain(selector[name]);
  const targets = [...ofKind('HorizontalPodAutoscaler'), ...ofKind('ScaledObject')].map(
    ({ spec }) => (spec as { scaleTargetRef: { name: string } }).scaleTargetRef.name,
  );
  expect(targets.toSorted()).toEqual(['fewloop-api', 'fewloop-stream']);
});

/** As kustomize makes it; which only machines with kubectl can tell. */
function render(overlay: string): Manifest[] {
  const { stdout } = spawnSync('kubectl', ['kustomize', path.join(ROOT, 'overlays', overlay)], { encoding: 'utf8' });
  return parseAllDocuments(stdout).map((document) => ('toJS' in document ? document.toJS() : null) as Manifest);
}

/** What a container is given by ConfigMaps and by itself. */
function givenTo({ env = [], envFrom = [] }: Container, objects: Manifest[]): Record<string, string> {
  const maps = envFrom.map(({ configMapRef }) =>
    objects.find(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === configMapRef?.name),
  );
  return Object.assign(
    {},
    ...maps.map((map) => map?.data),
    Object.fromEntries(env.map((one) => [one.name, one.value])),
  );
}

const hasKubectl = spawnSync('kubectl', ['version', '--client']).status === 0;

describe.runIf(hasKubectl).each(['cpu', 'gpu', 'kafka'])('the overlay %s', (overlay) => {
  const objects = hasKubectl ? render(overlay) : [];
  const deployed = objects.filter(({ kind }) => kind === 'Deployment');

  it('has a process of each role, all of which are told of Kafka where there is one', () => {
    const given = deployed.map((one) => givenTo(templateOf(one).spec.containers[0]!, objects));
    expect(given.map((env) => env['FEWLOOP_ROLE'] ?? '').toSorted()).toEqual(['api', 'stream', 'trainer']);
    for (const env of given) expect('KAFKA_BROKERS' in env).toBe(overlay === 'kafka');
  });

  it('asks for CUDA just where it has given a GPU', () => {
    const asked = [...deployed, ...objects.filter(({ kind }) => kind === 'Job')].map((workload) => {
      const [container] = templateOf(workload).spec.containers as [Container];
      const ofImage = container.image.endsWith('-cuda') ? 'cuda:0' : 'cpu';
      const hasGpu = 'nvidia.com/gpu' in container.resources.limits;
      return { name: workload.metadata.name, hasGpu, device: givenTo(container, objects)['FEWLOOP_DEVICE'] ?? ofImage };
    });
    expect(asked).toHaveLength(4);
    expect(asked).toEqual(asked.map((one) => ({ ...one, device: one.hasGpu ? 'cuda:0' : 'cpu' })));
  });
});

it('the base has a process of each role, with Kafka or without', () => {
  const roles = manifests
    .filter(({ file, manifest }) => file.startsWith('base/') && manifest.kind === 'Deployment')
    .map(({ manifest }) => templateOf(manifest).spec.containers[0]?.env)
    .map((env) => env?.find(({ name }) => name === 'FEWLOOP_ROLE')?.value ?? '');
  expect(roles.toSorted()).toEqual(['api', 'stream', 'trainer']);
});

it('every metric is one that there is', () => {
  const metrics = files.flatMap((file) => {
    const text = readFileSync(path.join(ROOT, file), 'utf8');
    return [...text.matchAll(/\bfewloop_[a-z_]+/gu)].map(([metric]) => metric);
  });
  expect(new Set(metrics).size).toBeGreaterThan(2);
  expect(metrics.filter((metric) => !(metric in DESCRIPTIONS))).toEqual([]);
});

describe('the number that the stream is scaled on', () => {
  const [{ spec } = { spec: null }] = ofKind('ScaledObject');
  const [trigger] = (spec as { triggers: { metadata: { query: string; ignoreNullValues: string } }[] }).triggers;
  const { query, ignoreNullValues } = trigger!.metadata;

  it('is of metrics alone: without any there is none, which is refused', () => {
    expect(query).not.toMatch(/\bvector\(/u);
    expect(ignoreNullValues).toBe('false');
  });

  it.runIf(hasPromtool())('is the time that the lag takes, 0 without a rate, none where no worker tells', () => {
    const lag = { series: 'fewloop_stream_lag_records{namespace="fewloop", pod="a"}', values: '6000x2 _x5' };
    const rate = { series: 'fewloop_stream_consumption_rate{namespace="fewloop", pod="a"}', values: '_ 20x1 _x5' };
    const at = (eval_time: string, ...exp_samples: object[]) => ({ expr: query, eval_time, exp_samples });
    const tests = [
      {
        interval: '10m',
        input_series: [lag, rate],
        promql_expr_test: [at('0m', { value: 0 }), at('10m', { value: 300 }), at('50m')],
      },
    ];
    const folder = mkdtempSync(path.join(tmpdir(), 'fewloop-promql-'));
    try {
      const file = path.join(folder, 'tests.json');
      writeFileSync(file, JSON.stringify({ tests }));
      expect(promtool(['test', 'rules', file])).toMatchObject({ status: 0 });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

it('an overlay’s trainer is of the release of its service', () => {
  for (const overlay of ['cpu', 'gpu']) {
    const own = manifests.find(({ file }) => file === `overlays/${overlay}/kustomization.yaml`)?.manifest;
    const [service] = own?.images ?? [];
    const trainer = new Map(own?.configMapGenerator?.[0]?.literals.map(literal)).get('FEWLOOP_TRAINER_IMAGE');
    expect(trainer).toBe(`${service?.newName.replace('fewloop-service', 'fewloop-trainer')}:${service?.newTag}`);
  }
});

it('the guide names every port that a process may call', () => {
  const guide = readFileSync(path.join(ROOT, '../docs/operations/kubernetes.md'), 'utf8');
  const said = /\*\*Whom it may call\*\*:(.*)/u.exec(guide)?.[1] ?? '';
  const policies = ofKind('NetworkPolicy').map(({ spec }) => spec as { egress?: { ports: { port: number }[] }[] });
  const open = policies.flatMap(({ egress = [] }) => egress.flatMap(({ ports }) => ports.map(({ port }) => port)));
  expect(open.length).toBeGreaterThan(5);
  expect(open.filter((port) => !new RegExp(`\\b${port}\\b`, 'u').test(said))).toEqual([]);
});

it('the launcher’s rights are those that its calls need, and no others', () => {
  const calls = readFileSync(path.join(ROOT, '../src/launch/kubernetes-cluster.ts'), 'utf8');
  const verbs = { create: 'create', read: 'get', list: 'list', delete: 'delete' } as Record<string, string>;
  const used = new Set<string>();
  for (const [, verb = '', thing = ''] of calls.matchAll(/\b(create|read|list|delete)Namespaced(Job|PodLog|Pod)\b/gu)) {
    const resource = { Job: 'jobs', Pod: 'pods', PodLog: 'pods/log' }[thing];
    used.add(`${verbs[verb]} ${resource}`);
  }
  for (const [, resource = ''] of calls.matchAll(/namespaces\/\$\{namespace\}\/(jobs|pods)`/gu))
    used.add(`watch ${resource}`);
  const given = ofKind('Role').flatMap(({ rules = [] }) =>
    rules.flatMap(({ resources, verbs: may }) =>
      resources.flatMap((resource) => may.map((verb) => `${verb} ${resource}`)),
    ),
  );
  expect(given.toSorted()).toEqual([...used].toSorted());
});
