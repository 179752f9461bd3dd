import { Subject } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FewloopError } from '../common/errors.js';
import type { LearningEvents } from '../learning/events.js';
import type { ReproductionService } from '../learning/reproduction.js';
import type { RunService } from '../learning/runs.js';
import type { Catalogue } from '../registry/catalogue.js';
import { RunsResolver } from './runs.resolver.js';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const run = (state: string, progress: number) => ({ id: 'one', task: 'news', state, progress });

/** `get`: what the database says each time it is asked, its last answer from then on. */
function watched(get: (object | Error)[]) {
  const runChanged$ = new Subject<object>();
  let next = 0;
  const runs = {
    get: async () => {
      const answer = get[Math.min(next++, get.length - 1)]!;
      if (answer instanceof Error) throw answer;
      return answer;
    },
  };
  const resolver = new RunsResolver(
    runs as unknown as RunService,
    {} as Catalogue,
    {} as ReproductionService,
    { runChanged$ } as unknown as LearningEvents,
  );
  const heard: unknown[] = [];
  const over = (async () => {
    for await (const frame of await resolver.trainingRunProgress('one')) heard.push(frame['trainingRunProgress']);
  })();
  return { runChanged$, heard, over };
}

describe('trainingRunProgress', () => {
  it('ends although nobody tells of the end, and says each thing once', async () => {
    const away = new FewloopError('INTERNAL', 'the database is away');
    const { runChanged$, heard, over } = watched([run('RUNNING', 0.1), run('RUNNING', 0.5), away, run('SUCCEEDED', 1)]);
    await vi.advanceTimersByTimeAsync(0);
    runChanged$.next(run('RUNNING', 0.5));
    await vi.advanceTimersByTimeAsync(20_000);
    await over;
    expect(heard).toEqual([run('RUNNING', 0.1), run('RUNNING', 0.5), run('SUCCEEDED', 1)]);
    expect([runChanged$.observed, vi.getTimerCount()]).toEqual([false, 0]);
  });

  it('fails where there is no such run', async () => {
    const { over } = watched([new FewloopError('RUN_NOT_FOUND', 'there is no run one')]);
    await expect(over).rejects.toMatchObject({ code: 'RUN_NOT_FOUND' });
    expect(vi.getTimerCount()).toBe(0);
  });
});
