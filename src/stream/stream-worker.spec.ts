import { getEventListeners } from 'node:events';
import { Subject } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FewloopError } from '../common/errors.js';
import type { Outcome } from '../inference/engine.js';
import type { ClassifyRequest, Member, Prediction, ServedModel } from '../inference/types.js';
import type { TaskDefinition } from '../task/types.js';
import type { PoolService } from '../learning/pool.js';
import type { RecordOutcome, StreamBatch, StreamPort } from './records.js';
import { StreamWorker } from './stream-worker.js';

/** Holds what was put in until its outcome is kept. */
class MemoryStream implements StreamPort {
  readonly pending: StreamBatch[] = [];
  readonly kept: RecordOutcome[] = [];
  readonly excepted: string[][] = [];
  waits = 0;

  async open(): Promise<void> {}
  state() {
    return { ok: true };
  }
  async close(): Promise<void> {}

  async process(except: string[], score: (batch: StreamBatch) => Promise<RecordOutcome[]>) {
    this.excepted.push(except);
    const at = this.pending.findIndex(({ task }) => !except.includes(task));
    const [batch] = at < 0 ? [] : this.pending.splice(at, 1);
    if (!batch) return false;
    try {
      this.kept.push(...(await score(batch)));
      return true;
    } catch (error) {
      this.pending.push(batch);
      throw error;
    }
  }

  async wait(): Promise<void> {
    this.waits += 1;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const prediction = { label: 'good', modelVersion: 1 } as Prediction;
const good: Outcome = { ok: true, prediction, embedding: new Float32Array(), itemKey: 'k' };
const released = vi.fn();
const predicted = vi.fn();
const definition = {
  maxLength: 128,
  labels: [{ name: 'good' }, { name: 'bad' }, { name: 'neither' }],
  serving: { policy: 'ensemble' },
} as TaskDefinition;
let members: ServedModel['members'];
const peek = (task: string) => ({
  model: { task, version: 1, definition, members } as ServedModel,
  bytes: () => 0,
  release: released,
});
const current = vi.fn(async (task: string) => peek(task));
const classify = vi.fn(async (_model: ServedModel, { items }: ClassifyRequest): Promise<Outcome[]> =>
  items.map(() => good),
);
/** Texts of each task that an older version scored, and what became of them when they were scored anew. */
let stale: Record<string, string[]>;
let anew: Record<string, (Prediction | Error)[]>;
const refresh = vi.fn<PoolService['refresh']>(async ({ task }, limit, score) => {
  const texts = stale[task]?.slice(0, limit) ?? [];
  if (texts.length === 0) return false;
  anew[task] = await score(texts.map((text) => ({ text })));
  stale[task]!.splice(0, limit);
  return true;
});
const runs = { training: false };
let loaded: string[];
let port: MemoryStream;
let forgotten$: Subject<string>;
let worker: StreamWorker;

beforeEach(() => {
  vi.clearAllMocks();
  loaded = [];
  stale = {};
  anew = {};
  members = [{ role: 'teacher' } as Member];
  runs.training = false;
  port = new MemoryStream();
  forgotten$ = new Subject();
  worker = new StreamWorker(
    { role: 'all' },
    port,
    { classify },
    { current, loaded: () => loaded, peek },
    { refresh },
    { rematch: async () => undefined },
    { predicted },
    runs,
    { register: () => undefined },
    { forgotten$ },
  );
});
afterEach(() => worker.beforeApplicationShutdown());

const batch = (task: string, ...texts: string[]): StreamBatch => ({
  task,
  records: texts.map((text, i) => ({ ref: `${task}${i}`, id: text, item: { text } })),
});

it('keeps an outcome a record, and tells predictions once they are kept', async () => {
  classify.mockResolvedValueOnce([good, { ok: false, error: new FewloopError('BAD_INPUT', 'text: is empty') }]);
  port.pending.push(batch('a', '好', ''));
  worker.onApplicationBootstrap();
  await expect.poll(() => predicted).toHaveBeenCalledOnce();
  expect(port.kept.map(({ ref, state }) => [ref, state])).toEqual([
    ['a0', 'scored'],
    ['a1', 'refused'],
  ]);
  expect(predicted).toHaveBeenCalledWith({ task: 'a', id: '好', prediction });
  expect(released).toHaveBeenCalledOnce();
});

it('a task without a model does not hold up the others, and loses nothing', async () => {
  current.mockRejectedValueOnce(new FewloopError('NO_ACTIVE_MODEL', 'none'));
  port.pending.push(batch('none', '一'), batch('a', '二'));
  worker.onApplicationBootstrap();
  await expect.poll(() => port.kept.map(({ ref }) => ref)).toContain('a0');
  expect(port.excepted).toContainEqual(['none']);
  await expect.poll(() => port.kept).toHaveLength(2);
});

it('a full queue is waited for; a defect is a failure of the records, to be tried again', async () => {
  classify.mockRejectedValueOnce(new FewloopError('OVERLOADED', 'full', { retryAfterMs: 10 }));
  // In the batch, and once more alone.
  classify.mockRejectedValueOnce(new Error('broken'));
  classify.mockRejectedValueOnce(new Error('broken'));
  port.pending.push(batch('a', '一'));
  worker.onApplicationBootstrap();
  await expect.poll(() => port.kept).toMatchObject([{ ref: 'a0', state: 'failed', error: { code: 'INTERNAL' } }]);
  expect(predicted).not.toHaveBeenCalled();
});

it.each([
  ['a row a text', {}, [256, 256, 88]],
  ['a row a label besides', { hypotheses: {} }, Array.from({ length: 10 }, (_, i) => (i < 9 ? 64 : 24))],
])('a large batch goes to the model in parts: %s', async (_name, own, parts) => {
  members = [{ role: 'teacher', ...own } as Member];
  port.pending.push(batch('a', ...Array.from({ length: 600 }, (_, i) => `${i}`.padEnd(120, '好'))));
  worker.onApplicationBootstrap();
  await expect.poll(() => port.kept).toHaveLength(600);
  expect(classify.mock.calls.map(([, { items }]) => items.length)).toEqual(parts);
  expect(released).toHaveBeenCalledOnce();
});

it('blames no text where one that was scored before fails too', async () => {
  port.pending.push(batch('a', '一'));
  worker.onApplicationBootstrap();
  await expect.poll(() => port.kept).toHaveLength(1);
  for (let i = 0; i < 3; i++) classify.mockRejectedValueOnce(new Error('no host'));
  port.pending.push(batch('a', '二'));
  await expect.poll(() => port.kept).toHaveLength(2);
  expect(port.kept.map(({ state }) => state)).toEqual(['scored', 'scored']);
  // The one that was scored before, whose answer is still known.
  expect(classify.mock.calls.map(([, { items, anew: isAnew }]) => [items[0]!.text, isAnew ?? false])).toEqual([
    ['一', false],
    ['二', false],
    ['二', false],
    ['一', true],
    ['二', false],
  ]);
});

it.each([
  [
    'asks about the one that was scored before where a text of another task was forgotten',
    'b',
    ['一', '二', '二', '一'],
  ],
  ['asks about none that was scored before a text of the task was forgotten', 'a', ['一', '二', '二']],
])('%s', async (_name, task, asked) => {
  port.pending.push(batch('a', '一'));
  worker.onApplicationBootstrap();
  await expect.poll(() => port.kept).toHaveLength(1);
  forgotten$.next(task);
  for (let i = 0; i < 2; i++) classify.mockRejectedValueOnce(new Error('no host'));
  port.pending.push(batch('a', '二'));
  await expect.poll(() => port.kept.at(-1)?.state).toBe('failed');
  expect(classify.mock.calls.map(([, { items }]) => items[0]!.text)).toEqual(asked);
});

it('leaves nothing behind of a wait that is over', async () => {
  const added = vi.spyOn(EventTarget.prototype, 'addEventListener');
  worker.onApplicationBootstrap();
  await expect.poll(() => port.waits).toBeGreaterThan(20);
  const stop = added.mock.contexts.find((target) => target instanceof AbortSignal)!;
  added.mockRestore();
  // One for each lane that waits now.
  expect(getEventListeners(stop, 'abort').length).toBeLessThanOrEqual(2);
});

it('a wait that fails is a pause, not the end', async () => {
  vi.spyOn(port, 'wait').mockRejectedValueOnce(new Error('the port broke'));
  worker.onApplicationBootstrap();
  await expect.poll(() => port.waits).toBeGreaterThan(4);
  port.pending.push(batch('a', '一'));
  await expect.poll(() => port.kept).toHaveLength(1);
});

it('scores candidates anew when nothing else is to do, and not while a trainer has the cores', async () => {
  loaded = ['a'];
  runs.training = true;
  port.pending.push(batch('a', '一'));
  worker.onApplicationBootstrap();
  await expect.poll(() => port.waits).toBeGreaterThan(4);
  expect(port.kept).toHaveLength(1);
  expect(refresh).not.toHaveBeenCalled();
  runs.training = false;
  port.pending.push(batch('a', '二'));
  await expect.poll(() => refresh).toHaveBeenCalled();
});

describe('candidates of an older version', () => {
  const failed: Outcome = { ok: false, error: new FewloopError('INTERNAL', 'no model host could be started') };
  /** Answers all texts of the task but these. */
  const failing = (task: string, isFailing: (text: string) => boolean) =>
    classify.mockImplementation(async (model, { items }) =>
      items.map(({ text }) => (model.task === task && isFailing(text) ? failed : good)),
    );
  const states = (task: string) => anew[task]?.map((result) => (result instanceof Error ? 'failed' : 'scored'));
  afterEach(() => classify.mockImplementation(async (_model, { items }) => items.map(() => good)));

  it('stay so where the model fails on all of them, and are scored once it answers; other tasks go on', async () => {
    failing('a', () => true);
    loaded = ['a', 'b'];
    stale = { a: ['一', '二'], b: ['三'] };
    worker.onApplicationBootstrap();
    await expect.poll(() => states('b')).toEqual(['scored']);
    await expect(refresh.mock.results[0]!.value).rejects.toBe(failed.error);
    expect([stale['a'], stale['b']]).toEqual([['一', '二'], []]);
    failing('a', () => false);
    await expect.poll(() => states('a')).toEqual(['scored', 'scored']);
  });

  it('are left where one fails alone, or all and one that was scored before does not', async () => {
    failing('a', (text) => text.startsWith('坏'));
    loaded = ['a'];
    stale = { a: ['一', '坏一', '二', '三'] };
    worker.onApplicationBootstrap();
    await expect.poll(() => states('a')).toEqual(['scored', 'failed', 'scored', 'scored']);
    stale = { a: ['坏二', '坏三'] };
    await expect.poll(() => states('a')).toEqual(['failed', 'failed']);
  });
});
