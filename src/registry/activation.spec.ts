/** Opening on demand, with versions that open at once or not at all. With real hosts: test/integration/bundle-swap.spec.ts. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { tinyTask } from '../../test/fixtures/bundle.js';
import { Config } from '../config/config.js';
import { FewloopError } from '../common/errors.js';
import type { HostPool } from '../runtime/host-pool.js';
import type { TasksRepository } from '../storage/tasks.repository.js';
import type { VersionsRepository } from '../storage/versions.repository.js';
import { ActivationService } from './activation.js';
import type { BatchBudgets } from './batch-budget.js';
import type { Bundle } from './bundle.js';
import type { Bundles } from './bundles.js';
import type { RehearsalEngine } from './rehearsal.js';

vi.mock('./precision.js', () => ({
  openInPrecision: async ({ manifest: { task, version } }: Bundle) => ({
    model: { task, version, definition: tinyTask() },
    bytes: () => 0,
    release: async () => undefined,
  }),
}));

const broken = new FewloopError('BUNDLE_INVALID', 'broken');
const noRoom = new FewloopError('OVERLOADED', 'no room', { retryAfterMs: 2000 });
const cannotBeServed = { code: 'NO_ACTIVE_MODEL', cause: broken };

/** The version that is to answer. */
let desired: number;
/** Versions that cannot be opened, and why. */
let failing: Map<number, FewloopError>;
/** Versions that were read, in order. */
let opened: number[];
let service: ActivationService;

beforeEach(() => {
  vi.useFakeTimers();
  desired = 2;
  failing = new Map([[2, broken]]);
  opened = [];
  const read = async ({ task, version }: { task: string; version: number }) => {
    opened.push(version);
    await Promise.resolve();
    const error = failing.get(version);
    if (error) throw error;
    return { manifest: { task, version } } as Bundle;
  };
  service = new ActivationService(
    Config.load({}).with({ idleMinutes: 0, warmMinutes: 10 }),
    { close: async () => undefined } as HostPool,
    {} as RehearsalEngine,
    {} as BatchBudgets,
    {
      find: async (name: string) => ({ name, activeVersion: desired, definition: tinyTask() }),
    } as unknown as TasksRepository,
    { find: async (task: string, version: number) => ({ task, version }) } as unknown as VersionsRepository,
    { read } as unknown as Bundles,
  );
});
afterEach(async () => {
  await service.onApplicationShutdown();
  vi.useRealTimers();
});

const ask = async () => {
  const lease = await service.current('a');
  lease.release();
  return lease.model.version;
};

describe('a version that cannot be opened', () => {
  it('is tried once for all requests that come meanwhile, and not again for some seconds', async () => {
    const asked = await Promise.allSettled(Array.from({ length: 100 }, ask));
    expect(asked.map(({ status }) => status)).toEqual(Array(100).fill('rejected'));
    vi.advanceTimersByTime(4_900);
    await expect(ask()).rejects.toMatchObject(cannotBeServed);
    expect(opened).toEqual([2]);
    vi.advanceTimersByTime(200);
    await expect(ask()).rejects.toMatchObject(cannotBeServed);
    expect(opened).toEqual([2, 2]);
  });

  it('is tried again when there may be room, and answers then', async () => {
    failing.set(2, noRoom);
    await expect(ask()).rejects.toBe(noRoom);
    failing.clear();
    vi.advanceTimersByTime(1_900);
    await expect(ask()).rejects.toBe(noRoom);
    vi.advanceTimersByTime(200);
    expect(await ask()).toBe(2);
    expect(opened).toEqual([2, 2]);
  });

  it('holds up no other that is to answer', async () => {
    const first = Promise.allSettled([ask()]);
    await vi.waitUntil(() => opened.length === 1);
    const prepared = service.prepare('a', 1);
    const more = Promise.allSettled(Array.from({ length: 100 }, ask));
    await prepared;
    expect(opened).toEqual([2, 1]);
    for (const asked of [...(await first), ...(await more)]) {
      expect(asked).toMatchObject({ status: 'rejected', reason: cannotBeServed });
    }
    // Nor is what was made ready given back for another attempt, however late.
    vi.advanceTimersByTime(30_000);
    await expect(ask()).rejects.toMatchObject(cannotBeServed);
    await expect(service.activate('a', 2, { mayRest: true })).rejects.toBe(broken);
    desired = 1;
    await service.activate('a', 1);
    expect(await ask()).toBe(1);
    expect(opened).toEqual([2, 1]);
  });

  it('is asked for at once when another is to answer, or when it was opened otherwise', async () => {
    await expect(ask()).rejects.toMatchObject(cannotBeServed);
    desired = 3;
    expect(await ask()).toBe(3);
    failing.clear();
    desired = 2;
    await service.activate('a', 2);
    expect(await ask()).toBe(2);
  });

  it('answers at once where it was made ready since', async () => {
    await expect(ask()).rejects.toMatchObject(cannotBeServed);
    failing.clear();
    await service.prepare('a', 2);
    expect(await ask()).toBe(2);
    expect(opened).toEqual([2, 2]);
  });
});
