/** Bundles built, verified, activated and swapped under load, on the tiny model with real hosts. */
import { appendFile, cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { InferenceEngine } from '../../src/inference/engine.js';
import { Health } from '../../src/common/health.js';
import { ActivationService } from '../../src/registry/activation.js';
import { BatchBudgets } from '../../src/registry/batch-budget.js';
import { readBundle } from '../../src/registry/bundle.js';
import { Bundles } from '../../src/registry/bundles.js';
import type { BundleManifest, GoldenFile } from '../../src/registry/manifest.js';
import { RehearsalEngine } from '../../src/registry/rehearsal.js';
import { ModelRegistry } from '../../src/registry/versions.js';
import { ZeroShotBuilder } from '../../src/registry/zero-shot.js';
import { HostLayout } from '../../src/registry/host-layout.js';
import { estimatedBytes } from '../../src/runtime/host-memory.js';
import { HostPool, type HostPoolSettings } from '../../src/runtime/host-pool.js';
import type { ModelVersionRow } from '../../src/storage/entities/model-version.js';
import type { TasksRepository } from '../../src/storage/tasks.repository.js';
import type { Transactions, Tx } from '../../src/storage/transactions.js';
import type { VersionsRepository } from '../../src/storage/versions.repository.js';
import type { ServingPolicy, TaskDefinition } from '../../src/task/types.js';
import { sha256, TINY_MODEL, tinyTask, writeManifest } from '../fixtures/bundle.js';
import { descendants, isAlive, treeMemoryMiB, until } from '../fixtures/processes.js';

const TEXTS = [
  '很好',
  '太差了',
  '服务不错，下次再来',
  '东西坏了！退货',
  '一般般',
  '质量很好，价格也便宜',
  '不好用',
  '喜欢',
];
const GRAPH = join(TINY_MODEL, 'model.onnx');
const ITEMS = TEXTS.map((text) => ({ text }));

class World {
  readonly rows = new Map<string, ModelVersionRow>();
  readonly desired = new Map<string, number | null>();
  /** Of every task. */
  definition = tinyTask();
  tasksAway = false;
  readonly config: Config;
  readonly poolSettings: HostPoolSettings;
  readonly pool: HostPool;
  readonly engine = new InferenceEngine({ maxBatchTokens: 512, maxConcurrentBatches: 4, maxQueuedTokens: 1_000_000 });
  readonly zeroShot: ZeroShotBuilder;
  readonly registry: ModelRegistry;
  readonly activation: ActivationService;

  constructor(
    readonly dataDir: string,
    {
      hosts = 2,
      idleMinutes = 0,
      warmMinutes = 0,
      memoryBytes = Number.POSITIVE_INFINITY,
      precision = 'auto',
    }: {
      hosts?: number;
      idleMinutes?: number;
      warmMinutes?: number;
      memoryBytes?: number;
      precision?: Config['precision'];
    } = {},
  ) {
    const settings = { device: 'cpu', precision, maxBatchTokens: 512, maxTextLength: 20_000, idleMinutes, warmMinutes };
    this.config = { dataDir, baseModel: TINY_MODEL, ...settings } as Config;
    this.poolSettings = { hosts, threads: 1, device: 'cpu', memoryBytes };
    this.pool = new HostPool(this.poolSettings);
    const transactions = { run: (work: (tx: Tx) => unknown) => work({} as Tx) } as unknown as Transactions;
    const versions = {
      lockRegistration: async () => undefined,
      find: async (task: string, version: number) => this.rows.get(`${task}/${version}`) ?? null,
      insert: async (row: ModelVersionRow) => {
        this.rows.set(`${row.task}/${row.version}`, row);
        return row;
      },
    } as unknown as VersionsRepository;
    const tasks = {
      find: async (name: string) => {
        if (this.tasksAway) throw new Error('the database is away');
        const activeVersion = this.desired.get(name);
        return activeVersion === undefined ? null : { name, activeVersion, definition: this.definition };
      },
    } as unknown as TasksRepository;
    const rehearsal = new RehearsalEngine(this.config);
    this.zeroShot = new ZeroShotBuilder(this.config, this.pool, rehearsal);
    const bundles = new Bundles(this.config, versions, null, new Health());
    this.registry = new ModelRegistry(this.config, tasks, versions, transactions, bundles);
    this.activation = new ActivationService(
      this.config,
      this.pool,
      rehearsal,
      new BatchBudgets(this.config, new HostLayout(hosts, 1)),
      tasks,
      versions,
      bundles,
    );
  }

  /** A registered zero-shot version; `own` gives it graph files of its own, so that it needs hosts of its own. */
  async version(
    version: number,
    { definition = tinyTask(), own = false, items = ITEMS } = {},
  ): Promise<BundleManifest> {
    const outFolder = join(this.dataDir, 'built', definition.name, String(version));
    const prior = definition.labels.map(() => 1 / definition.labels.length);
    const manifest = await this.zeroShot.build({ definition, version, revision: 1, items, prior, outFolder });
    if (own) await ownGraph(outFolder, manifest);
    await this.registry.registerVersion({ task: definition.name, version, folder: outFolder, runId: null });
    return manifest;
  }

  /** The bundle of one version as another, with hosts of its own. */
  async copyOf(from: number, version: number): Promise<void> {
    const folder = join(this.dataDir, 'built', 'copy');
    await cp(this.folder('tiny', from), folder, { recursive: true });
    const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as BundleManifest;
    manifest.version = version;
    await ownGraph(folder, manifest);
    await this.registry.registerVersion({ task: 'tiny', version, folder, runId: null });
  }

  folder(task: string, version: number): string {
    return join(this.dataDir, this.registry.folderOf(task, version));
  }

  async classify(task = 'tiny', items = ITEMS, policy?: ServingPolicy) {
    const lease = await this.activation.current(task);
    try {
      return await this.engine.classify(lease.model, { items, priority: 'interactive', policy });
    } finally {
      lease.release();
    }
  }
}

/** The same graph under another digest: unknown fields (here number 100, empty) are skipped by every protobuf reader. */
async function ownGraph(folder: string, manifest: BundleManifest): Promise<void> {
  await cp(GRAPH, join(folder, 'g0.onnx'));
  await appendFile(
    join(folder, 'g0.onnx'),
    Buffer.from([0xa2, 0x06, 0x04, ...Buffer.from(String(manifest.version).padStart(4))]),
  );
  const digest = sha256(await readFile(join(folder, 'g0.onnx')));
  Object.assign(manifest.graphs[0]!, { base: false, file: 'g0.onnx', sha256: digest });
  await writeManifest(folder, manifest);
}

/** Gives a version int8 graphs (made by make-int8.py), spoilt by `change`. */
async function addInt8(world: World, version: number, change: (graph: Buffer) => Buffer = (graph) => graph) {
  const folder = world.folder('tiny', version);
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as BundleManifest;
  const graph = change(await readFile(join(TINY_MODEL, '../tiny-int8.onnx')));
  await writeFile(join(folder, 'g0.int8.onnx'), graph);
  manifest.graphs[0]!.variants = [{ precision: 'int8', file: 'g0.int8.onnx', sha256: sha256(graph) }];
  manifest.precisions = [{ precision: 'int8', admitted: true, reason: null, texts: 2000 }];
  await writeManifest(folder, manifest);
  world.rows.get(`tiny/${version}`)!.digest = sha256(await readFile(join(folder, 'manifest.json')));
}

/** Gives a version a student like its first teacher, with a graph of its own that comes in int8, too. */
async function addStudentInInt8(world: World, version: number): Promise<void> {
  const folder = world.folder('tiny', version);
  const read = async (file: string) => JSON.parse(await readFile(join(folder, file), 'utf8')) as unknown;
  const manifest = (await read('manifest.json')) as BundleManifest;
  const golden = (await read('golden.json')) as GoldenFile;
  const [graph] = manifest.graphs;
  const [teacher] = manifest.members;
  const variant = join(TINY_MODEL, '../tiny-int8.onnx');
  await cp(join(folder, graph!.file), join(folder, 'g1.onnx'));
  await cp(variant, join(folder, 'g1.int8.onnx'));
  const variants = [{ precision: 'int8' as const, file: 'g1.int8.onnx', sha256: sha256(await readFile(variant)) }];
  manifest.graphs.push({ ...graph!, id: 'g1', file: 'g1.onnx', variants });
  manifest.members.push({ ...teacher!, id: 'student', role: 'student', graph: 'g1' });
  manifest.policies.student = manifest.policies.ensemble!;
  manifest.precisions = [{ precision: 'int8', admitted: true, roles: ['student'], reason: 'ensemble: too few agree' }];
  for (const { members } of golden.rows) {
    members.push({ ...members.find(({ member }) => member === teacher!.id)!, member: 'student' });
  }
  await writeFile(join(folder, 'golden.json'), JSON.stringify(golden));
  manifest.golden.sha256 = sha256(await readFile(join(folder, 'golden.json')));
  await writeManifest(folder, manifest);
  world.rows.get(`tiny/${version}`)!.digest = sha256(await readFile(join(folder, 'manifest.json')));
}

/** With another scale of weights: a graph that loads and answers something else. */
const withScale = (to: number) => (graph: Buffer) => {
  const name = Buffer.from('int8.scale');
  const scale = Buffer.alloc(4);
  scale.writeFloatLE(1 / 127);
  const at = graph.lastIndexOf(scale, graph.lastIndexOf(name) + 64);
  const spoilt = Buffer.from(graph);
  spoilt.writeFloatLE(to, at);
  return spoilt;
};

describe('bundles', () => {
  let dataDir: string;
  let world: World;

  beforeEach(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'fewloop-swap-'));
    world = new World(dataDir);
  });
  afterEach(async () => {
    await world.activation.onApplicationShutdown();
    await until(() => descendants(process.pid).length === 0);
    await rm(dataDir, { recursive: true });
  });

  it('builds a zero-shot bundle whose mean prediction is the prior', async () => {
    const manifest = await world.version(1);
    const bundle = await readBundle(world.folder('tiny', 1), { baseModel: TINY_MODEL });
    expect(bundle.manifest.members.map(({ id, weight }) => [id, weight])).toEqual([
      ['t0', 0.5],
      ['t1', 0.5],
    ]);
    const report = bundle.report as { priorFrom: string; texts: number; members: { after: number[] }[] };
    expect(report).toMatchObject({ kind: 'zero-shot', priorFrom: 'texts', texts: TEXTS.length });
    const unknown = { value: null, interval: null, digest: null, reason: expect.stringMatching(/no labelled row/) };
    const latency = {
      value: expect.any(Number),
      unit: 'ms',
      texts: TEXTS.length,
      digest: expect.stringMatching(/^[0-9a-f]{64}$/),
    };
    expect(report).toMatchObject({ accuracy: unknown, macroF1: unknown, ece: unknown, augrc: unknown, latency });
    for (const { after } of report.members) for (const p of after) expect(p).toBeCloseTo(0.5, 5);
    expect(bundle.golden.rows.length).toBeGreaterThanOrEqual(6);
    expect(manifest.libraries['onnxruntime-node']).toMatch(/^\d+\.\d+/);
    expect(world.rows.get('tiny/1')).toMatchObject({ state: 'CANDIDATE', digest: bundle.digest });
  });

  it.each<[string, TaskDefinition, object[]]>([
    ['no texts', tinyTask(), []],
    ['pairs', tinyTask('pair', { kind: 'sentence-pair', templates: ['{text}很{mask}{textPair}'] }), []],
    ['blanks and fields', tinyTask('blank', { templates: ['{text|blank:#x#}', '{title}{mask}{text}'] }), []],
    ['choices', tinyTask('choice', { kind: 'multiple-choice', labels: [], templates: ['{text|blank:#x#}'] }), []],
  ])('builds from %s', async (_name, definition, items) => {
    await world.version(1, { definition, items: items as typeof ITEMS });
    world.desired.set(definition.name, 1);
    (await world.activation.current(definition.name)).release();
    expect(world.activation.served()).toEqual({ [definition.name]: 1 });
  });

  it('says what is missing', async () => {
    await expect(world.activation.current('tiny')).rejects.toMatchObject({ code: 'TASK_NOT_FOUND' });
    world.desired.set('tiny', null);
    await expect(world.activation.current('tiny')).rejects.toMatchObject({ code: 'NO_ACTIVE_MODEL' });
    world.definition = tinyTask('tiny', { method: 'fine-tune' });
    await expect(world.activation.current('tiny')).rejects.toMatchObject({
      code: 'NO_ACTIVE_MODEL',
      message: expect.stringContaining('once its first run is promoted'),
    });
    await expect(world.activation.activate('tiny', 3)).rejects.toMatchObject({ code: 'VERSION_NOT_FOUND' });
    world.desired.set('tiny', 3);
    await expect(world.activation.current('tiny')).rejects.toMatchObject({ code: 'NO_ACTIVE_MODEL' });
  });

  it('keeps the active model when the next one does not hold on this machine', async () => {
    await world.version(1);
    await world.activation.activate('tiny', 1);
    const spoil = async (version: number, change: (golden: GoldenFile) => void) => {
      const manifest = await world.version(version, { own: true });
      const folder = world.folder('tiny', version);
      const golden = JSON.parse(await readFile(join(folder, 'golden.json'), 'utf8')) as GoldenFile;
      change(golden);
      await writeFile(join(folder, 'golden.json'), JSON.stringify(golden));
      manifest.golden.sha256 = sha256(JSON.stringify(golden));
      await writeManifest(folder, manifest);
      world.rows.get(`tiny/${version}`)!.digest = sha256(await readFile(join(folder, 'manifest.json')));
    };
    await spoil(2, ({ rows }) => (rows[1]!.members[0]!.distribution[0]! += 2e-4));
    await spoil(3, ({ rows }) => (rows[0]!.members[1]!.ids[1]! += 1));
    await spoil(4, ({ rows }) => (rows[0]!.members[1]!.member = 't7'));
    await world.version(5, { own: true });
    await appendFile(join(world.folder('tiny', 5), 'g0.onnx'), 'x');
    await world.version(6, { own: true });
    await appendFile(join(world.folder('tiny', 6), 'manifest.json'), ' ');
    for (const [version, message] of [
      [2, /probability differs/],
      [3, /ids differ/],
      [4, /t7/],
      [5, /g0\.onnx/],
      [6, /manifest/],
    ] as const) {
      const failed = { code: 'BUNDLE_INVALID', message: expect.stringMatching(message) };
      await expect(world.activation.prepare('tiny', version)).rejects.toMatchObject(failed);
      await expect(world.activation.activate('tiny', version)).rejects.toMatchObject(failed);
      expect(world.activation.served()).toEqual({ tiny: 1 });
    }
    expect((await world.classify()).every((outcome) => outcome.ok)).toBe(true);
    expect(await world.pool.pids()).toHaveLength(2);
  });

  it('renders a version from before spans as it was trained: its golden texts say which it is', async () => {
    const definition = tinyTask('spans', { templates: ['{aspect}{mask}：{text}'] });
    const manifest = await world.version(1, { definition, items: [] });
    const folder = world.folder('spans', 1);
    delete manifest.rendering;
    await writeManifest(folder, manifest);
    world.rows.get('spans/1')!.digest = sha256(await readFile(join(folder, 'manifest.json')));
    await expect(world.activation.activate('spans', 1)).rejects.toMatchObject({
      code: 'BUNDLE_INVALID',
      message: expect.stringMatching(/golden text 7, member t0: ids differ/),
    });
  });

  it('serves int8 where the version has it, and answers as in fp32', async () => {
    await world.version(1, { own: true });
    await world.activation.activate('tiny', 1);
    expect(world.activation.precisionOf('tiny', 1)).toBe('fp32');
    const exact = await world.classify();
    await world.version(2, { own: true });
    await addInt8(world, 2);
    await world.activation.activate('tiny', 2);
    expect(world.activation.precisionOf('tiny', 2)).toBe('int8');
    expect(world.activation.precisionOf('tiny', 1)).toBeUndefined();
    const answers = await world.classify();
    const differences = answers.map((answer, i) => {
      const other = exact[i]!;
      if (!answer.ok || !other.ok) throw new Error('not answered');
      return Math.abs(answer.prediction.distribution[0]!.probability - other.prediction.distribution[0]!.probability);
    });
    expect(Math.max(...differences)).toBeLessThan(5e-2);
    expect(Math.max(...differences)).toBeGreaterThan(0);
  });

  it('serves a student in int8 whose teachers were not admitted in it, and those in fp32', async () => {
    await world.version(1, { own: true });
    await addStudentInInt8(world, 1);
    await world.activation.activate('tiny', 1);
    expect(world.activation.precisionOf('tiny', 1)).toBe('int8');
    const exact = new World(dataDir, { hosts: 1, precision: 'fp32' });
    exact.rows.set('tiny/1', world.rows.get('tiny/1')!);
    await exact.activation.activate('tiny', 1);
    expect(await world.classify('tiny', ITEMS, 'ensemble')).toEqual(await exact.classify('tiny', ITEMS, 'ensemble'));
    expect(await world.classify('tiny', ITEMS, 'student')).not.toEqual(await exact.classify('tiny', ITEMS, 'student'));
    await exact.activation.onApplicationShutdown();
  });

  it.each([
    ['by a probability', 1, /probability differs/],
    ['by what is no number', Number.NaN, /no number/],
  ])(
    'falls back to fp32 where int8 fails its golden texts %s, and refuses it where it was asked for',
    async (_how, scale, message) => {
      await world.version(1, { own: true });
      await addInt8(world, 1, withScale(scale));
      await world.activation.activate('tiny', 1);
      expect(world.activation.precisionOf('tiny', 1)).toBe('fp32');
      const strict = new World(dataDir, { hosts: 1, precision: 'int8' });
      strict.rows.set('tiny/1', world.rows.get('tiny/1')!);
      await expect(strict.activation.activate('tiny', 1)).rejects.toMatchObject({
        code: 'BUNDLE_INVALID',
        message: expect.stringMatching(message),
      });
      await strict.activation.onApplicationShutdown();
    },
  );

  it('refuses a bundle whose int8 graph was changed, whatever is served', async () => {
    await world.version(1, { own: true });
    await addInt8(world, 1);
    await appendFile(join(world.folder('tiny', 1), 'g0.int8.onnx'), 'x');
    await expect(world.activation.activate('tiny', 1)).rejects.toMatchObject({
      code: 'BUNDLE_INVALID',
      message: expect.stringMatching(/g0\.int8\.onnx/),
    });
  });

  it('registers once, again after a crash, and not another content under the same number', async () => {
    await world.version(1);
    const again = () =>
      world.registry.registerVersion({ task: 'tiny', version: 1, folder: join(dataDir, 'gone'), runId: null });
    await again();
    world.rows.clear();
    await again();
    await expect(world.version(1, { items: ITEMS.slice(0, 4) })).rejects.toMatchObject({ code: 'CONFLICT' });
  });

  it('shares hosts between zero-shot tasks', async () => {
    await world.version(1);
    await world.version(1, { definition: tinyTask('second') });
    await world.activation.activate('tiny', 1);
    await world.activation.activate('second', 1);
    expect(await world.pool.pids()).toHaveLength(2);
  });

  it('opens a candidate beside the active version, and gives it back', async () => {
    await world.version(1);
    await world.version(2, { own: true });
    await world.activation.activate('tiny', 1);
    const candidate = await world.activation.openVersion('tiny', 2);
    expect(await world.pool.pids()).toHaveLength(4);
    await world.engine.classify(candidate.model, { items: ITEMS, priority: 'bulk' });
    candidate.release();
    await expect.poll(() => world.pool.pids()).toHaveLength(2);
    expect(world.activation.served()).toEqual({ tiny: 1 });
  });

  it('follows the routing of the newest revision, open, replaced or beside; who is being answered keeps the old', async () => {
    world = new World(dataDir, { warmMinutes: 1 });
    world.desired.set('tiny', 2);
    await world.version(1);
    await world.version(2);
    await world.activation.activate('tiny', 1);
    await world.activation.activate('tiny', 2);
    const routes = async () =>
      (await world.classify()).map((outcome) => (outcome.ok ? outcome.prediction.route : outcome.error));
    const before = await world.activation.current('tiny');
    expect(new Set(await routes())).toEqual(new Set(['REVIEW']));
    world.definition = tinyTask('tiny', {
      routing: { accept: 0, reviewContested: false, beforeCalibration: 'accept' },
      maxLength: 16,
    });
    world.activation.follow({ name: 'tiny', definition: world.definition });
    expect(new Set(await routes())).toEqual(new Set(['ACCEPT']));
    expect(before.model.definition.routing.accept).toBe(0.85);
    before.release();
    await world.activation.activate('tiny', 1);
    expect(new Set(await routes())).toEqual(new Set(['ACCEPT']));
    // What is opened later begins with it; what a model was trained for stays its own.
    const beside = await world.activation.openBeside('tiny', 2, { spare: false });
    const { model, release } = beside.lease();
    expect(model.definition).toMatchObject({ routing: { accept: 0 }, maxLength: 32 });
    release();
    await beside.close();
  });

  it('gives back what it opened where the task can no longer be read', async () => {
    await world.version(1);
    world.tasksAway = true;
    await expect(world.activation.openBeside('tiny', 1, { spare: false })).rejects.toThrow('away');
    await expect.poll(() => world.pool.pids()).toHaveLength(0);
  });

  describe('a replaced version', () => {
    /** Two versions with hosts of their own; the second answers. */
    async function swapped(settings: { warmMinutes: number; memoryBytes?: number }): Promise<number[]> {
      world = new World(dataDir, { hosts: 1, ...settings });
      await world.version(1, { own: true });
      await world.copyOf(1, 2);
      await world.activation.activate('tiny', 1);
      const pids = await world.pool.pids();
      await world.activation.activate('tiny', 2);
      return pids;
    }

    const answeredBy = async () => {
      const [outcome] = await world.classify();
      return outcome!.ok && outcome!.prediction.modelVersion;
    };

    it('stays open for a while: going back is immediate, and forth again', async () => {
      const first = await swapped({ warmMinutes: 10 });
      const both = await world.pool.pids();
      expect(both).toEqual(expect.arrayContaining(first));
      expect(both).toHaveLength(2);
      for (const version of [1, 2, 1]) {
        await world.activation.prepare('tiny', version);
        await world.activation.activate('tiny', version);
        expect(await answeredBy()).toBe(version);
      }
      // No host was started for it.
      expect(new Set(await world.pool.pids())).toEqual(new Set(both));
    });

    it('makes room for the next, so that a task never holds more than two', async () => {
      const first = await swapped({ warmMinutes: 10 });
      await world.copyOf(1, 3);
      await world.activation.activate('tiny', 3);
      expect(first.filter(isAlive)).toEqual([]);
      expect(await world.pool.pids()).toHaveLength(2);
      expect(await answeredBy()).toBe(3);
    });

    it('is closed when its time is over, and once nobody is answered by it any more', async () => {
      world = new World(dataDir, { hosts: 1, warmMinutes: 0.001 });
      await world.version(1, { own: true });
      await world.copyOf(1, 2);
      await world.activation.activate('tiny', 1);
      const first = await world.pool.pids();
      const lease = await world.activation.current('tiny');
      await world.activation.activate('tiny', 2);
      const [outcome] = await world.engine.classify(lease.model, { items: ITEMS, priority: 'interactive' });
      expect(outcome!.ok && outcome!.prediction.modelVersion).toBe(1);
      lease.release();
      await expect.poll(() => first.filter(isAlive)).toEqual([]);
    });

    it('is not kept where the next one took its memory, and is opened anew to go back to', async () => {
      const first = await swapped({ warmMinutes: 10, memoryBytes: 1 });
      expect(first.filter(isAlive)).toEqual([]);
      expect(await answeredBy()).toBe(2);
      await world.activation.activate('tiny', 1);
      expect(await answeredBy()).toBe(1);
      expect(await world.pool.pids()).toHaveLength(1);
    });

    it('gives its memory to another model before one that answers does', async () => {
      const first = await swapped({ warmMinutes: 10 });
      expect(world.activation.loaded()).toEqual(['tiny']);
      await world.version(3, { own: true, definition: tinyTask('second') });
      world.desired.set('tiny', 2).set('second', 3);
      // Room for a host as it is measured here, and one by its estimate. What is measured depends on what else runs.
      const [measured, estimated] = [world.pool.bytes / 2, estimatedBytes([{ sha256: '', path: GRAPH }], 1)];
      world.poolSettings.memoryBytes = 1.5 * measured + estimated;
      await world.activation.activate('second', 3);
      await expect.poll(() => first.filter(isAlive)).toEqual([]);
      expect(world.activation.loaded()).toEqual(['tiny', 'second']);
    });
  });

  describe('memory', () => {
    /** Two tasks with hosts of their own, of which one has room. */
    async function narrow(settings: { idleMinutes?: number; memoryBytes?: number }): Promise<void> {
      world = new World(dataDir, { hosts: 1, ...settings });
      await world.version(1, { own: true });
      // Another number in its graph, and so another digest.
      await world.version(2, { own: true, definition: tinyTask('second') });
      world.desired.set('tiny', 1).set('second', 2);
    }

    it('is given back by who was not asked longest, and taken again when it is asked', async () => {
      await narrow({ memoryBytes: 1 });
      await world.activation.activate('tiny', 1);
      await world.activation.activate('second', 2);
      expect(world.activation.loaded()).toEqual(['second']);
      expect(world.activation.served()).toEqual({ tiny: 1, second: 2 });
      expect(await world.pool.pids()).toHaveLength(1);
      expect((await world.classify('tiny')).every((outcome) => outcome.ok)).toBe(true);
      expect(world.activation.loaded()).toEqual(['tiny']);
      expect(await world.pool.pids()).toHaveLength(1);
    });

    it('is not taken from who is being asked', async () => {
      await narrow({ memoryBytes: 1 });
      const lease = await world.activation.current('tiny');
      await expect(world.activation.current('second')).rejects.toMatchObject({
        code: 'OVERLOADED',
        message: expect.stringContaining('FEWLOOP_MODEL_MEMORY_MB'),
        retryAfterMs: expect.any(Number),
      });
      // Nobody asks for it yet: it rests until there is room.
      await world.activation.activate('second', 2, { mayRest: true });
      expect(world.activation.served()).toEqual({ tiny: 1, second: 2 });
      lease.release();
      expect((await world.classify('second')).every((outcome) => outcome.ok)).toBe(true);
    });

    it('is taken from an idle task to build the first version of another', async () => {
      await narrow({ memoryBytes: 1 });
      await world.activation.activate('tiny', 1);
      await world.version(1, { definition: tinyTask('third') });
      expect(world.activation.loaded()).toEqual([]);
      expect(world.activation.served()).toEqual({ tiny: 1 });
    });

    it('is measured, and both have room where there is enough', async () => {
      await narrow({ memoryBytes: 4 * 2 ** 30 });
      await world.activation.activate('tiny', 1);
      const one = world.pool.bytes;
      expect(one).toBeGreaterThan(20 * 2 ** 20);
      await world.activation.activate('second', 2);
      expect(world.activation.loaded()).toEqual(['tiny', 'second']);
      expect(world.pool.bytes).toBeGreaterThan(one);
    });

    it('is given back by tasks that nobody asks', async () => {
      await narrow({ idleMinutes: 0.001 });
      await world.activation.activate('tiny', 1);
      await expect.poll(() => world.activation.loaded()).toEqual([]);
      expect(world.activation.served()).toEqual({ tiny: 1 });
      await expect.poll(() => world.pool.pids()).toEqual([]);
      expect((await world.classify('tiny')).every((outcome) => outcome.ok)).toBe(true);
    });
  });

  it('swaps under load: no failure, no mixture of versions, old hosts gone, memory as before', async () => {
    const swaps = 10;
    await world.version(1);
    await world.version(2, { own: true });
    for (let version = 3; version <= swaps + 1; version++) await world.copyOf(2, version);
    await world.activation.activate('tiny', 1);
    const clock = { running: true };
    let requests = 0;
    const seen = new Set<number>();
    const client = async () => {
      while (clock.running) {
        const outcomes = await world.classify();
        const versions = new Set(
          outcomes.map((outcome) => (outcome.ok ? outcome.prediction.modelVersion : outcome.error)),
        );
        expect(versions.size).toBe(1);
        for (const version of versions) seen.add(version as number);
        requests++;
      }
    };
    const clients = Promise.all(Array.from({ length: 8 }, client));
    const memory: number[] = [];
    for (let swap = 1; swap <= swaps; swap++) {
      const before = await world.pool.pids();
      await world.activation.prepare('tiny', swap + 1);
      await world.activation.activate('tiny', swap + 1);
      await world.activation.drained('tiny');
      expect(before.filter(isAlive)).toEqual([]);
      await new Promise((resolve) => setTimeout(resolve, 100));
      memory.push(treeMemoryMiB());
    }
    clock.running = false;
    await clients;
    expect([...seen].every((version) => typeof version === 'number')).toBe(true);
    expect(seen.size).toBeGreaterThan(swaps / 2);
    expect(requests).toBeGreaterThan(100);
    expect(memory.at(-1)!).toBeLessThan(memory[1]! * 1.1);
  });
});
