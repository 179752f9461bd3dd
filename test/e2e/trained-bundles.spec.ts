/**
 * What the real trainer makes of every method and kind holds in the service: its bundle is read, its golden texts are
 * rendered and scored here as the trainer did.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { InferenceEngine } from '../../src/inference/engine.js';
import { readPseudoLabels, writeRunFolder } from '../../src/launch/run-folder.js';
import { fileDigest, readBundle } from '../../src/registry/bundle.js';
import { verifyGolden } from '../../src/registry/golden.js';
import { openBundle } from '../../src/registry/served-model.js';
import { HostPool } from '../../src/runtime/host-pool.js';
import { definitionDigest, parseTask } from '../../src/task/definition.js';
import { itemKey, splitGroup, splitOf } from '../../src/task/keys.js';
import type { Item, ServingPolicy } from '../../src/task/types.js';
import { TINY_MODEL } from '../fixtures/bundle.js';
import { REHEARSAL } from '../fixtures/classifier-bundle.js';
import { trainerPython } from '../fixtures/service-process.js';

const LABELS = [
  { name: 'positive', words: ['好'], description: '很好。' },
  { name: 'negative', words: ['差'], description: '很差。' },
];
const THINGS = ['手机', '酒店', '水果', '衣服', '电脑', '书', '牛奶', '平板', '外卖', '耳机', '包装', '物流'];
const PHRASES = { positive: ['很好', '满意', '很快'], negative: ['太差了', '失望', '太慢'] };
const ROWS = THINGS.flatMap((thing) =>
  Object.entries(PHRASES).flatMap(([label, phrases]) => phrases.map((how) => ({ text: `${thing}${how}`, label }))),
).filter(({ text }) => splitOf(splitGroup(text)) === 'train');

let root: string;
let hostPool: HostPool;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'fewloop-trained-'));
  hostPool = new HostPool({ hosts: 1, threads: 1, device: 'cpu' });
});
afterAll(async () => {
  await hostPool.close();
  await rm(root, { recursive: true });
});

/** A base model of random weights whose layers share theirs, with the tiny model's tokenizer. */
const MAKE_ALBERT = `
import shutil, sys
from transformers import AlbertConfig, AlbertForMaskedLM
shape = dict(vocab_size=2048, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
AlbertForMaskedLM(AlbertConfig(**shape, embedding_size=16)).save_pretrained(sys.argv[2])
shutil.copy(f"{sys.argv[1]}/tokenizer.json", sys.argv[2])
`;

/** The served model of a run on `rows`; its golden texts have been checked. */
async function trained(
  definition: object,
  rows: (Item & { label?: string; labels?: string[] })[],
  baseModel = TINY_MODEL,
) {
  const folder = join(root, String(Math.random()).slice(2));
  const task = parseTask(JSON.stringify({ maxLength: 32, labels: LABELS, ...definition }));
  const keyed = (item: Item) => ({ itemKey: itemKey(item), splitGroup: splitGroup(item.text), ...item });
  const labelled = rows.slice(0, 16).map(({ label, labels, ...item }) => ({
    ...keyed(item),
    ...(labels ? { labels } : { label: label! }),
    split: 'train' as const,
  }));
  const unlabelled = rows.slice(16).map((row) => {
    const item = { ...row };
    delete item.label;
    delete item.labels;
    return keyed(item);
  });
  const settings = {
    formatVersion: 1 as const,
    runId: '11111111-2222-3333-4444-555555555555',
    task: task.name,
    version: 2,
    taskRevision: 1,
    definitionDigest: definitionDigest(task),
    definition: task,
    seed: 1,
    baseModel: { name: 'tiny', folder: baseModel, digest: await fileDigest(join(baseModel, 'model.safetensors')) },
    budgetSeconds: 10,
    threads: 1,
    prior: null,
  };
  await writeRunFolder(folder, settings, { labelled, unlabelled });
  const env = { ...process.env, PYTHONPATH: resolve('trainer'), OMP_NUM_THREADS: '1' };
  await promisify(execFile)(trainerPython(), ['-m', 'fewloop_trainer', 'run', folder], { env });
  const known = new Map(unlabelled.map((row) => [row.itemKey, row.choices ?? task.labels.map(({ name }) => name)]));
  for (const { itemKey: key, labels, votes } of (await readPseudoLabels(folder))!) {
    expect(known.get(key)).toEqual(expect.arrayContaining(labels));
    expect(votes.length).toBeGreaterThan(0);
  }
  const bundle = await readBundle(join(folder, 'bundle'), { baseModel });
  const { model } = await openBundle(bundle, hostPool);
  const engine = new InferenceEngine(REHEARSAL);
  await verifyGolden(engine, model, bundle.golden);
  const ask = (items: Item[], policy?: ServingPolicy) =>
    engine.classify(model, { items, priority: 'interactive', ...(policy && { policy }) });
  const [outcome] = await ask([rows[0]!]);
  return { manifest: bundle.manifest, outcome: outcome!, ask };
}

it('a committee of all methods', async () => {
  const method = ['pet', 'fine-tune', 'efl', 'embedding'];
  const learning = { strategies: ['plain'] };
  const templates = ['{text}很{mask}'];
  // No student is so sure that a cascade would not ask the teachers.
  const definition = { name: 'committee', kind: 'single-label', method, templates, learning, routing: { accept: 1 } };
  const { manifest, outcome, ask } = await trained(definition, ROWS);
  expect(manifest.members.filter(({ role }) => role === 'teacher').map((member) => member.method)).toEqual(method);
  expect(outcome).toMatchObject({ ok: true, prediction: { modelVersion: 2, disagreement: { voters: 4 } } });

  expect(manifest.policies.cascade!.temperature).toBeGreaterThan(0);
  const items = ROWS.map(({ text }) => ({ text }));
  const [full, inTurn] = [await ask(items, 'ensemble'), await ask(items, 'cascade')];
  const asked = inTurn.map((one, i) => {
    const all = full[i]!;
    if (!one.ok || !all.ok) throw new Error('a text without an answer');
    expect(one.prediction.label).toBe(all.prediction.label);
    return one.prediction.members.length;
  });
  expect(Math.max(...asked)).toBeLessThanOrEqual(4);
  expect(asked.reduce((sum, count) => sum + count, 0)).toBeLessThan(4 * items.length);
});

it('a committee on a base model whose layers share weights', async () => {
  const albert = join(root, 'albert');
  await promisify(execFile)(trainerPython(), ['-c', MAKE_ALBERT, TINY_MODEL, albert]);
  const definition = {
    name: 'shared',
    kind: 'single-label',
    method: ['pet', 'embedding'],
    templates: ['{text}很{mask}'],
    learning: { strategies: ['plain'] },
  };
  const { outcome } = await trained(definition, ROWS, albert);
  expect(outcome).toMatchObject({ ok: true, prediction: { modelVersion: 2, disagreement: { voters: 2 } } });
});

it('pairs', async () => {
  const rows = ROWS.map(({ text, label }, i) => ({ text, textPair: ROWS[(i * 7 + 3) % ROWS.length]!.text, label }));
  const definition = {
    name: 'pairs',
    kind: 'sentence-pair',
    method: ['efl', 'fine-tune'],
    efl: { negatives: 1, negativeLabel: 'negative' },
  };
  const { manifest, outcome } = await trained(definition, rows);
  expect(manifest.members[0]!.template).toBe('{text}{sep}{textPair}');
  expect(outcome).toMatchObject({ ok: true });
});

it('pairs by the embedding member, each side with what the input puts beside it', async () => {
  const rows = ROWS.map(({ text, label }, i) => ({
    text,
    textPair: label === 'positive' ? text : ROWS[(i * 7 + 3) % ROWS.length]!.text,
    fields: { title: '第一句' },
    label,
  }));
  const input = '{title}：{text}{sep}第二句：{textPair}';
  const definition = { name: 'embedded-pairs', kind: 'sentence-pair', method: 'embedding', input };
  const { manifest, outcome } = await trained(definition, rows);
  expect(manifest.graphs.map(({ kind }) => kind)).toEqual(['classifier', 'classifier']);
  expect(manifest.members.map(({ role, method, template }) => ({ role, method, template }))).toEqual([
    { role: 'teacher', method: 'embedding', template: input },
    { role: 'student', method: 'embedding', template: input },
  ]);
  expect(outcome).toMatchObject({ ok: true, prediction: { distribution: [{}, {}] } });
});

it('label sets', async () => {
  const rows = ROWS.map(({ text, label }, i) => ({
    text,
    labels: i % 5 === 0 ? [] : i % 3 === 0 ? ['positive', 'negative'] : [label],
  }));
  const definition = { name: 'sets', kind: 'multi-label', method: ['efl', 'embedding', 'fine-tune'] };
  const { manifest, outcome } = await trained(definition, rows);
  expect(Object.keys(manifest.thresholds ?? {})).toEqual(['positive', 'negative']);
  expect(outcome).toMatchObject({ ok: true, prediction: { distribution: [{}, {}] } });
});
