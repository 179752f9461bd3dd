import { expect, it } from 'vitest';
import { memoryModel, MemoryRunner } from '../../test/fixtures/memory-model.js';
import { classifierMember } from '../../test/fixtures/classifier-bundle.js';
import { InferenceEngine } from '../inference/engine.js';
import { fixedShapes } from '../inference/shapes.js';
import type { HostBatch, ServedModel } from '../inference/types.js';
import { warmShapes } from './warm-shapes.js';

class Gpu extends MemoryRunner {
  readonly fixedShapes = true;
}

const BUDGET = 256;
const OTHER_WORDS = {
  labels: [
    { name: 'good', words: ['很好', '不错'] },
    { name: 'fair', words: ['一般'] },
    { name: 'bad', words: ['很差', '糟糕'] },
  ],
};
const of = ({ graph, rows, length, masks, words }: HostBatch) => ({ graph, rows, length, masks, words });

function committee(runner: Gpu, task: object): ServedModel {
  const model = memoryModel(runner, {}, task);
  return { ...model, members: [...model.members, classifierMember({ graph: 'c0' })] };
}

it.each([
  ['one mask', {}, { masks: 1, words: 3 }],
  ['two masks', OTHER_WORDS, { masks: 2, words: 5 }],
])('warms every shape with the words that the task has: %s', async (_, task, own) => {
  const warmed = new Gpu({ c0: 3 });
  await warmShapes(committee(warmed, task), 1, BUDGET);
  const model = committee(new Gpu({ c0: 3 }), task);
  const shapes = fixedShapes(BUDGET, model.definition.maxLength);
  // Members that share a graph are asked alike.
  expect(warmed.batches.map(of)).toEqual(
    shapes.flatMap((shape) => [
      { graph: 'g0', ...shape, ...own },
      { graph: 'c0', ...shape, masks: 0, words: 0 },
    ]),
  );
  const engine = new InferenceEngine({ maxBatchTokens: BUDGET, maxConcurrentBatches: 1, maxQueuedTokens: 100_000 });
  const items = Array.from({ length: 60 }, (_, i) => ({ text: `第${i}条${'很好'.repeat(i % 20)}` }));
  const served = new Gpu({ c0: 3 });
  const outcomes = await engine.classify(committee(served, task), { items, priority: 'bulk' });
  expect(outcomes.every(({ ok }) => ok)).toBe(true);
  expect(new Set(served.batches.map(({ graph }) => graph))).toEqual(new Set(['g0', 'c0']));
  for (const batch of served.batches) expect(warmed.batches.map(of)).toContainEqual(of(batch));
});

it('gives each host each of them, at the same time', async () => {
  const [one, three] = [new Gpu(), new Gpu()];
  await warmShapes(memoryModel(one), 1, BUDGET);
  await warmShapes(memoryModel(three), 3, BUDGET);
  expect(three.batches).toHaveLength(3 * one.batches.length);
  expect([one.mostInFlight, three.mostInFlight]).toEqual([1, 3]);
});

it('fails where the device does', async () => {
  const broken = new Gpu();
  broken.failing = new Error('out of memory');
  await expect(warmShapes(memoryModel(broken), 2, BUDGET)).rejects.toThrow('out of memory');
});
