import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Notifications } from '../storage/notifications.js';
import type { ReplicasRepository } from '../storage/replicas.repository.js';
import type { TasksRepository } from '../storage/tasks.repository.js';
import type { ActivationService } from './activation.js';
import { ConvergenceService } from './convergence.js';

describe('ConvergenceService', () => {
  let desired: Record<string, number | null>;
  let served: Record<string, number>;
  let reports: Record<string, number>[];
  let failed: object;
  let told: (task: string) => void;
  let service: ConvergenceService;
  const activate = vi.fn(async (task: string, version: number) => {
    if (version === 13) throw new Error('spoiled');
    served[task] = version;
  });
  const notify = vi.fn(async () => true);
  const remove = vi.fn(async () => undefined);
  const follow = vi.fn();

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['Date'] });
    vi.clearAllMocks();
    [desired, served, reports] = [{ a: 1, b: 2, fresh: null }, {}, []];
    service = new ConvergenceService(
      {
        find: async (name: string) => (name in desired ? { name, activeVersion: desired[name] } : null),
        list: async () => Object.entries(desired).map(([name, activeVersion]) => ({ name, activeVersion })),
      } as unknown as TasksRepository,
      {
        report: async (_id: string, versions: Record<string, number>, failures: object) => {
          reports.push(versions);
          failed = failures;
        },
        removeSilentSince: async () => undefined,
        remove,
      } as unknown as ReplicasRepository,
      { on: (_channel: string, handler: typeof told) => (told = handler), notify } as unknown as Notifications,
      { activate, follow, served: () => ({ ...served }) } as unknown as ActivationService,
    );
  });
  afterEach(async () => {
    await service.beforeApplicationShutdown();
    vi.useRealTimers();
  });

  it('serves every active version after the start, and reports', async () => {
    service.onApplicationBootstrap();
    await service.ready();
    expect(served).toEqual({ a: 1, b: 2 });
    expect(reports).toHaveLength(1);
    await service.beforeApplicationShutdown();
    expect(remove).toHaveBeenCalledOnce();
  });

  it('hands on what each task says of routing, when told and whenever it looks', async () => {
    service.onApplicationBootstrap();
    await service.ready();
    expect(follow.mock.calls.map(([row]) => (row as { name: string }).name)).toEqual(
      expect.arrayContaining(['a', 'b', 'fresh']),
    );
    follow.mockClear();
    told('a');
    await vi.waitFor(() => expect(follow).toHaveBeenCalledWith(expect.objectContaining({ name: 'a' })));
    expect(activate).toHaveBeenCalledTimes(3);
  });

  it('follows when told', async () => {
    service.onApplicationBootstrap();
    await service.ready();
    desired['a'] = 4;
    told('a');
    await expect.poll(() => served).toEqual({ a: 4, b: 2 });
  });

  it('is ready although one version cannot be opened, and says so to whoever asks for it', async () => {
    desired['a'] = 13;
    service.onApplicationBootstrap();
    await service.ready();
    expect(served).toEqual({ b: 2 });
    await expect(service.converge('a')).rejects.toThrow('spoiled');
    await expect(service.converge('none')).rejects.toMatchObject({ code: 'TASK_NOT_FOUND' });
    expect(failed).toEqual({ a: { version: 13, message: 'spoiled' } });
    desired['a'] = 4;
    await service.converge('a');
    expect(failed).toEqual({});
  });

  it('no longer tells of a failure once a request has opened the version', async () => {
    desired['a'] = 13;
    service.onApplicationBootstrap();
    await service.ready();
    expect(service.state().failing).toEqual(['a']);
    served['a'] = 13;
    service.onApplicationBootstrap();
    await service.ready();
    expect(service.state().failing).toEqual([]);
  });

  it('tells the other replicas before it opens the version itself', async () => {
    desired['a'] = 13;
    await expect(service.announce('a')).rejects.toThrow('spoiled');
    expect(notify).toHaveBeenCalledWith('fewloop_desired', 'a');
    desired['a'] = 5;
    await service.announce('a');
    expect(served['a']).toBe(5);
  });
});
