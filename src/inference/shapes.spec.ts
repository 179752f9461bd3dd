import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { memoryModel, MemoryRunner } from '../../test/fixtures/memory-model.js';
import { InferenceEngine } from './engine.js';
import { fixedShape, fixedShapes } from './shapes.js';

describe('fixed shapes', () => {
  it('hold what they are for, by less than twice the rows', () => {
    expect(fixedShape(1, 1)).toEqual({ rows: 1, length: 16 });
    expect(fixedShape(5, 65)).toEqual({ rows: 8, length: 96 });
    expect(fixedShape(64, 128)).toEqual({ rows: 64, length: 128 });
    expect(fixedShape(3, 700)).toEqual({ rows: 4, length: 768 });
  });

  it('are all named beforehand', () => {
    const some = fc.record({
      rows: fc.integer({ min: 1, max: 512 }),
      length: fc.integer({ min: 2, max: 900 }),
      maxLength: fc.integer({ min: 2, max: 900 }),
      budget: fc.integer({ min: 64, max: 65_536 }),
    });
    fc.assert(
      fc.property(some, ({ rows, length, maxLength, budget }) => {
        const shape = fixedShape(rows, Math.min(length, maxLength));
        fc.pre(shape.rows === 1 || shape.rows * shape.length <= budget);
        expect(fixedShapes(budget, maxLength)).toContainEqual(shape);
      }),
    );
  });

  it('change no answer, and are those that a model was warmed with', async () => {
    class Gpu extends MemoryRunner {
      readonly fixedShapes = true;
    }
    const budget = 256;
    const engine = new InferenceEngine({ maxBatchTokens: budget, maxConcurrentBatches: 1, maxQueuedTokens: 100_000 });
    const items = Array.from({ length: 60 }, (_, i) => ({ text: `第${i}条${'很好'.repeat(i % 20)}` }));
    const ask = (runner: MemoryRunner) => engine.classify(memoryModel(runner), { items, priority: 'bulk' });
    const [cpu, gpu] = [new MemoryRunner(), new Gpu()];
    expect(await ask(gpu)).toEqual(await ask(cpu));
    const known = fixedShapes(budget, memoryModel(gpu).definition.maxLength);
    for (const { rows, length } of gpu.batches) expect(known).toContainEqual({ rows, length });
    expect(gpu.batches.length).toBeGreaterThan(1);
  });

  it('are few', () => {
    expect(fixedShapes(4096, 128)).toHaveLength(9 + 8 + 7 + 6 + 6);
  });
});
