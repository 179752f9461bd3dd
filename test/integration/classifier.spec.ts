/** Bundles whose members are not PET's, on a real classifier graph in real model hosts. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Config } from '../../src/config/config.js';
import { InferenceEngine } from '../../src/inference/engine.js';
import { BatchBudgets } from '../../src/registry/batch-budget.js';
import { readBundle } from '../../src/registry/bundle.js';
import { verifyGolden } from '../../src/registry/golden.js';
import type { BundleManifest, GoldenFile } from '../../src/registry/manifest.js';
import { HostLayout } from '../../src/registry/host-layout.js';
import { openBundle } from '../../src/registry/served-model.js';
import { HostLease, HostPool } from '../../src/runtime/host-pool.js';
import { parseTask } from '../../src/task/definition.js';
import type { TaskDefinition } from '../../src/task/types.js';
import { sha256, TINY_MODEL, writeManifest } from '../fixtures/bundle.js';
import { classifierMember, REHEARSAL, writeClassifierBundle } from '../fixtures/classifier-bundle.js';

const hypotheses = { 物流: '说到物流。', 质量: '说到质量。' };
const direct = classifierMember({});
const tagging = classifierMember({ id: 'm1', method: 'efl', template: '{text}{sep}{hypothesis}', hypotheses });
const vectors = { 物流: [1, 0, 0, 0], 质量: [-1, 0, 0, 0] };
const listed = { ...tagging, id: 'm2', shortlist: { size: 1, vectors } };
const pair = classifierMember({ method: 'efl', template: '{text}{sep}{textPair}' });

function task(kind: string, method: string[]): TaskDefinition {
  const labels = Object.entries(hypotheses).map(([name, description]) => ({ name, description }));
  return parseTask(JSON.stringify({ name: 'tiny', kind, method, labels, maxLength: 32 }));
}

describe('members of other methods than PET', () => {
  let folder: string;
  let hostPool: HostPool;
  const engine = new InferenceEngine(REHEARSAL);

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fewloop-classifier-'));
    hostPool = new HostPool({ hosts: 1, threads: 1, device: 'cpu' });
  });
  afterEach(async () => {
    await hostPool.close();
    await rm(folder, { recursive: true });
  });

  async function opened() {
    const bundle = await readBundle(folder, { baseModel: TINY_MODEL });
    const { model } = await openBundle(bundle, hostPool);
    await verifyGolden(engine, model, bundle.golden);
    return model;
  }

  async function rewrite(manifest: BundleManifest, golden: GoldenFile): Promise<void> {
    const content = JSON.stringify(golden);
    await writeFile(join(folder, 'golden.json'), content);
    await writeManifest(folder, { ...manifest, golden: { file: 'golden.json', sha256: sha256(content) } });
  }

  it('answer beside each other, single-label', async () => {
    await writeClassifierBundle(
      folder,
      task('single-label', ['fine-tune', 'efl']),
      [direct, tagging, listed],
      hostPool,
    );
    const [outcome] = await engine.classify(await opened(), { items: [{ text: '很好' }], priority: 'interactive' });
    expect(outcome).toMatchObject({ ok: true, prediction: { calibrated: true, disagreement: { voters: 3 } } });
    const { distribution, members } = (outcome as Extract<typeof outcome, { ok: true }>).prediction;
    expect(distribution.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1);
    expect(members[2]!.distribution.map(({ probability }) => probability)).toEqual([1, 0]);
  });

  it('are warm in every shape that a GPU is given, and answer as they do on a CPU', async () => {
    await writeClassifierBundle(folder, task('single-label', ['fine-tune', 'efl']), [direct, tagging], hostPool);
    const isGpu = vi.spyOn(HostLease.prototype, 'fixedShapes', 'get').mockReturnValue(true);
    const run = vi.spyOn(HostLease.prototype, 'run');
    const shapes = () => new Set(run.mock.calls.map(([{ graph, rows, length }]) => `${graph} ${rows} x ${length}`));
    try {
      const bundle = await readBundle(folder, { baseModel: TINY_MODEL });
      const { model } = await openBundle(bundle, hostPool);
      const warm = shapes();
      expect(warm.size).toBeGreaterThan(5);
      run.mockClear();
      await verifyGolden(engine, model, bundle.golden);
      const items = Array.from({ length: 30 }, (_, i) => ({ text: `第${i}条${'好'.repeat(i % 25)}` }));
      const outcomes = await engine.classify(model, { items, priority: 'bulk' });
      expect(outcomes.every(({ ok }) => ok)).toBe(true);
      expect([...shapes()].filter((shape) => !warm.has(shape))).toEqual([]);
      expect(run.mock.calls.length).toBeGreaterThan(3);
    } finally {
      isGpu.mockRestore();
      run.mockRestore();
    }
  });

  it('are served by other hosts than batches were measured on, which keep what the largest took', async () => {
    await writeClassifierBundle(folder, task('single-label', ['fine-tune', 'efl']), [direct, tagging], hostPool);
    const bundle = await readBundle(folder, { baseModel: TINY_MODEL });
    const config = { dataDir: folder, maxBatchTokens: '', device: 'cpu' } as Config;
    const budgets = new BatchBudgets(config, new HostLayout(1, 1));
    const open = vi.spyOn(hostPool, 'open');
    const measuring = new Set<number>();
    const { run: runs } = HostLease.prototype;
    const run = vi.spyOn(HostLease.prototype, 'run').mockImplementation(function (this: HostLease, batch) {
      for (const pid of this.pids()) measuring.add(pid);
      return runs.call(this, batch);
    });
    try {
      const first = await openBundle(bundle, hostPool, { budgets });
      expect(measuring.size).toBe(1);
      expect(first.pids()).toHaveLength(1);
      expect(first.pids().filter((pid) => measuring.has(pid))).toEqual([]);
      run.mockClear();
      open.mockClear();
      const second = await openBundle(bundle, hostPool, { budgets });
      expect(second.model.maxBatchTokens).toBe(first.model.maxBatchTokens);
      expect(run).not.toHaveBeenCalled();
      expect(open).toHaveBeenCalledTimes(1);
    } finally {
      open.mockRestore();
      run.mockRestore();
    }
  });

  it('answer with labels of their own, multi-label', async () => {
    const definition = task('multi-label', ['fine-tune', 'efl']);
    await writeClassifierBundle(folder, definition, [direct, tagging, listed], hostPool, { 物流: 0, 质量: 1 });
    const [outcome] = await engine.classify(await opened(), { items: [{ text: '很好' }], priority: 'interactive' });
    expect(outcome).toMatchObject({ ok: true, prediction: { label: '物流', labels: ['物流'] } });
  });

  it('answer about pairs', async () => {
    const { golden } = await writeClassifierBundle(folder, task('sentence-pair', ['efl']), [pair], hostPool);
    expect(golden.rows[0]!.members[0]!.typeIds).toContain(1);
    const items = [{ text: '很好', textPair: '不差' }];
    const [outcome] = await engine.classify(await opened(), { items, priority: 'interactive' });
    expect(outcome).toMatchObject({ ok: true, prediction: { label: expect.stringMatching(/物流|质量/u) } });
  });

  it('are checked against their golden texts, row by row, segments and all', async () => {
    const { manifest, golden } = await writeClassifierBundle(
      folder,
      task('single-label', ['efl']),
      [tagging],
      hostPool,
    );
    const [entry] = golden.rows[1]!.members;
    expect(entry!.rows).toHaveLength(2);
    expect(entry).toMatchObject({ ids: entry!.rows![0]!.ids, typeIds: entry!.rows![0]!.typeIds, maskPositions: [] });
    const { rows } = entry!;
    const [, second] = rows!;
    const spoilt: [GoldenFile['rows'][number]['members'][number], RegExp][] = [
      [{ ...entry!, typeIds: entry!.typeIds.map(() => 0) }, /golden text 2, member m1: typeIds differ/u],
      [
        { ...entry!, rows: [rows![0]!, { ...second!, typeIds: second!.typeIds.map(() => 0) }] },
        /row 2: typeIds differ/u,
      ],
      [{ ...entry!, rows: [rows![0]!, { ...second!, ids: [...second!.ids, 3] }] }, /row 2: ids differ/u],
      [{ ...entry!, rows: rows!.slice(1) }, /it has 1 rows, here it has 2/u],
      [{ ...entry!, distribution: [0.5, 0.5] }, /a probability differs/u],
    ];
    for (const [other, message] of spoilt) {
      await rewrite(manifest, { rows: golden.rows.with(1, { ...golden.rows[1]!, members: [other] }) });
      await expect(opened()).rejects.toMatchObject({ code: 'BUNDLE_INVALID', message: expect.stringMatching(message) });
    }
  });

  it.each<[string, (manifest: BundleManifest) => unknown, RegExp]>([
    ['a PET member on a classifier', (m) => (m.members[0]!.method = 'pet'), /pet member on the classifier graph/u],
    ['hypotheses of another label', (m) => (m.members[0]!.hypotheses = { 物流: '说到物流。' }), /hypotheses for 物流/u],
    ['a shortlist without hypotheses', (m) => delete m.members[0]!.hypotheses, /no hypotheses/u],
    ['a threshold over one', (m) => (m.thresholds = { 物流: 1.5 }), /thresholds/u],
    [
      'another shortlist than its digest says',
      (m) => (m.members[0]!.shortlist!.embeddings.sha256 = sha256('x')),
      /m2/u,
    ],
    ['a shortlist of nothing', (m) => (m.members[0]!.shortlist!.size = 0), /shortlist/u],
  ])('refuse %s', async (_, spoil, message) => {
    const { manifest } = await writeClassifierBundle(folder, task('single-label', ['efl']), [listed], hostPool);
    spoil(manifest);
    await writeManifest(folder, manifest);
    await expect(opened()).rejects.toMatchObject({ code: 'BUNDLE_INVALID', message: expect.stringMatching(message) });
  });

  it('refuse a shortlist that lacks a label', async () => {
    const partial = { ...listed, shortlist: { size: 1, vectors: { 物流: [1, 0, 0, 0] } as Record<string, number[]> } };
    const whole = { ...partial.shortlist.vectors, 质量: [1, 0] };
    await writeClassifierBundle(
      folder,
      task('single-label', ['efl']),
      [{ ...partial, shortlist: { size: 1, vectors: whole } }],
      hostPool,
    );
    await expect(opened()).rejects.toMatchObject({
      code: 'BUNDLE_INVALID',
      message: expect.stringContaining('one length'),
    });
  });
});
