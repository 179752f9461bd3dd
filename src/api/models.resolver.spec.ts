import { Subject } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FewloopError } from '../common/errors.js';
import type { Prediction } from '../inference/types.js';
import type { LearningEvents, PredictionEvent } from '../learning/events.js';
import type { PromotionService } from '../learning/promotion.js';
import type { TaskService } from '../learning/task-service.js';
import type { TrialService } from '../learning/trials.js';
import type { ActivationService } from '../registry/activation.js';
import type { Catalogue } from '../registry/catalogue.js';
import { ModelsResolver } from './models.resolver.js';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** There is one task, `news`. `heard`: the ids of what a subscriber to it was sent. */
async function watched(perSecond: number) {
  const predictions$ = new Subject<PredictionEvent>();
  const get = (name: string) =>
    name === 'news' ? Promise.resolve({}) : Promise.reject(new FewloopError('TASK_NOT_FOUND', name));
  const resolver = new ModelsResolver(
    { get } as unknown as TaskService,
    {} as PromotionService,
    {} as TrialService,
    {} as Catalogue,
    {} as ActivationService,
    { predictions$ } as unknown as LearningEvents,
  );
  const heard: unknown[] = [];
  const frames = resolver.predictions('news', perSecond);
  const over = (async () => {
    for await (const { predictions } of frames) heard.push(predictions!.id);
  })();
  await vi.advanceTimersByTimeAsync(0);
  const scored = (id: string, task = 'news') =>
    predictions$.next({ task, id, prediction: { label: 'sport' } as Prediction });
  return { heard, scored, over, stop: () => frames.return!(), isObserved: () => predictions$.observed };
}

describe('predictions', () => {
  it('are a sample of the task’s, so many a second at most, however many there are', async () => {
    const { heard, scored, over, stop, isObserved } = await watched(5);
    for (let i = 0; i < 20; i++) {
      scored(`other ${i}`, 'sport');
      scored(`${i}`);
      await vi.advanceTimersByTimeAsync(5);
    }
    expect(heard).toEqual(['0']);
    for (let i = 20; i < 200; i++) {
      await vi.advanceTimersByTimeAsync(5);
      scored(`${i}`);
    }
    // 1,000 ms in all: one each 200 ms.
    expect(heard).toHaveLength(5);
    await stop();
    await over;
    expect([isObserved(), vi.getTimerCount()]).toEqual([false, 0]);
  });
});
