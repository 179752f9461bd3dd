import type { FastifyReply } from 'fastify';
import { EventEmitter } from 'node:events';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { memoryModel, MemoryRunner } from '../../test/fixtures/memory-model.js';
import { NO_METRICS } from '../common/metrics/metrics.js';
import type { Config } from '../config/config.js';
import { InferenceEngine } from '../inference/engine.js';
import type { ActivationService, ModelLease } from '../registry/activation.js';
import { ClassifyResolver } from './classify.resolver.js';
import type { Work, WorkContext } from './work.js';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** A task whose model rests: `open` ends its opening. */
function resting() {
  const opening = Promise.withResolvers<ModelLease>();
  const release = vi.fn();
  const socket = new EventEmitter();
  const engine = new InferenceEngine({ maxBatchTokens: 256, maxConcurrentBatches: 2, maxQueuedTokens: 10_000 });
  const activation = { current: () => opening.promise } as unknown as ActivationService;
  const work = { charge: () => Promise.resolve() } as unknown as Work;
  const resolver = new ClassifyResolver({ textsPerRequest: 10 } as Config, activation, engine, work, NO_METRICS);
  const context = { reply: { request: { headers: {}, socket } } } as unknown as WorkContext & { reply: FastifyReply };
  return {
    socket,
    release,
    ask: (deadlineMs: number | null) => resolver.classify('reviews', [{ text: '好' }], { deadlineMs }, context),
    open: () => opening.resolve({ model: memoryModel(new MemoryRunner()), bytes: () => 0, release }),
  };
}

describe('a request to a task whose model rests', () => {
  it('is answered once the model is open', async () => {
    const { ask, open, release } = resting();
    const answer = ask(300);
    await vi.advanceTimersByTimeAsync(299);
    open();
    expect(await answer).toMatchObject([{ label: expect.any(String) as string }]);
    expect(release).toHaveBeenCalledOnce();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('ends at its deadline, and keeps nothing of a model that is open later', async () => {
    const { ask, open, release } = resting();
    const failure = ask(300).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(300);
    expect(await failure).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    expect(release).not.toHaveBeenCalled();
    open();
    await vi.advanceTimersByTimeAsync(0);
    expect(release).toHaveBeenCalledOnce();
  });

  it('ends when whoever asked is gone', async () => {
    const { ask, open, release, socket } = resting();
    const failure = ask(null).catch((error: unknown) => error);
    socket.emit('close');
    expect(await failure).toMatchObject({ code: 'CANCELLED' });
    open();
    await vi.advanceTimersByTimeAsync(0);
    expect(release).toHaveBeenCalledOnce();
  });
});
