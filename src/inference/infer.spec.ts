/** What the queue takes, in which order it goes, and what is dropped of it, over tasks that share hosts. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { characterTokenizer, MemoryRunner, memoryModel } from '../../test/fixtures/memory-model.js';
import type { Item } from '../task/types.js';
import { InferenceEngine, type Outcome } from './engine.js';
import type { ClassifyRequest, HostBatch, HostResult, ServedModel } from './types.js';

/** A batch of 96 tokens is three rows of 32. */
const LIMITS = { maxBatchTokens: 96, maxConcurrentBatches: 2, maxQueuedTokens: 4000 };
const ROW_TOKENS = 32;

/** One process that runs batches one after the other, each when it is told to. */
class FakeHost {
  readonly waiting: (() => void)[] = [];
  /** Of tasks, in order. */
  readonly ran: string[] = [];

  runner(task: string): MemoryRunner {
    return new HostedRunner(this, task);
  }

  /** Finishes the batch that runs, if there is one. */
  async finish(): Promise<void> {
    this.waiting.shift()?.();
    await settled();
  }

  async finishAll(): Promise<void> {
    while (this.waiting.length > 0) await this.finish();
  }
}

class HostedRunner extends MemoryRunner {
  constructor(
    readonly hosts: FakeHost,
    private readonly task: string,
  ) {
    super();
  }

  override async run(batch: HostBatch): Promise<HostResult> {
    this.hosts.ran.push(this.task);
    await new Promise<void>((resolve) => this.hosts.waiting.push(resolve));
    return super.run(batch);
  }
}

const settled = () => new Promise(setImmediate);
const texts = (tag: string, count: number): Item[] =>
  Array.from({ length: count }, (_, i) => ({ text: `${tag}${i}`.padEnd(40, '字') }));
const codes = (outcomes: Outcome[]) => outcomes.map((outcome) => (outcome.ok ? 'ok' : outcome.error.code));

let host: FakeHost;
let engine: InferenceEngine;
let encoded: string[];

const modelOf = (task: string, change: Partial<ServedModel> = {}): ServedModel => ({
  ...memoryModel(host.runner(task), {}, { templates: ['{text}很{mask}'] }),
  task,
  tokenizer: {
    ...characterTokenizer,
    encode: (asked) => {
      encoded.push(...asked);
      return characterTokenizer.encode(asked);
    },
  },
  ...change,
});
const ask = async (model: ServedModel, items: Item[], change: Partial<ClassifyRequest> = {}) => {
  const answer = engine.classify(model, { items, priority: 'interactive', ...change });
  // Those that are refused are looked at later.
  answer.catch(() => undefined);
  await settled();
  return { answer };
};

beforeEach(() => {
  host = new FakeHost();
  engine = new InferenceEngine(LIMITS);
  encoded = [];
});
afterEach(async () => {
  vi.useRealTimers();
  await host.finishAll();
  if (engine.queuedTokens !== 0) throw new Error(`${engine.queuedTokens} tokens are counted for ever`);
});

describe('tasks that share hosts', () => {
  it('take turns: an interactive request is next after what is with the host, whatever waits of other tasks', async () => {
    const crowd = ['a', 'b', 'c', 'd'];
    for (const task of crowd) await ask(modelOf(task), texts(task, 12), { priority: 'bulk' });
    // One runs, one is behind it: no more is out of the queue's hands.
    expect(host.ran).toHaveLength(2);
    const { answer } = await ask(modelOf('urgent'), texts('急', 1));
    await host.finish();
    expect(host.ran.at(-1)).toBe('urgent');
    await host.finish();
    await host.finish();
    expect(codes(await answer)).toEqual(['ok']);
    await host.finishAll();
    expect(host.ran.filter((task) => task !== 'urgent').toSorted()).toEqual(
      crowd.flatMap((task) => Array(4).fill(task)),
    );
  });

  it('keep the next batch with the host at all times, each batch of one task', async () => {
    for (const task of ['a', 'b', 'c']) await ask(modelOf(task), texts(task, 4));
    // Four rows of three are two batches a task.
    for (let left = 6; left > 1; left--) {
      expect(host.waiting).toHaveLength(2);
      await host.finish();
    }
    expect(host.waiting).toHaveLength(1);
    expect(host.ran).toHaveLength(6);
  });

  it('delay no others', async () => {
    await ask(modelOf('slow'), texts('慢', 30));
    const other = new MemoryRunner();
    expect(codes(await (await ask(memoryModel(other), texts('快', 1))).answer)).toEqual(['ok']);
  });
});

describe('a request whose asker is gone', () => {
  it('costs nothing: it is neither tokenized nor scored', async () => {
    const { answer } = await ask(modelOf('a'), texts('走', 3), { signal: AbortSignal.abort() });
    expect(codes(await answer)).toEqual(['CANCELLED', 'CANCELLED', 'CANCELLED']);
    expect([encoded, host.ran]).toEqual([[], []]);
  });

  it('is not scored where it left while it was tokenized', async () => {
    const leaving = new AbortController();
    const model = modelOf('a');
    const { encode } = model.tokenizer;
    model.tokenizer.encode = (asked) => (leaving.abort(), encode(asked));
    const { answer } = await ask(model, texts('走', 3), { signal: leaving.signal });
    expect(codes(await answer)).toEqual(['CANCELLED', 'CANCELLED', 'CANCELLED']);
    expect(encoded).not.toEqual([]);
    expect(host.ran).toEqual([]);
  });

  it('leaves the queue at once, and what is with the host is not waited for', async () => {
    const leaving = new AbortController();
    const { answer } = await ask(modelOf('a'), texts('走', 30), { signal: leaving.signal });
    expect(engine.queuedTokens).toBe(30 * ROW_TOKENS);
    leaving.abort();
    expect(engine.queuedTokens).toBe(6 * ROW_TOKENS);
    expect(new Set(codes(await answer))).toEqual(new Set(['CANCELLED']));
    await host.finishAll();
    expect(host.ran).toHaveLength(2);
    // Whoever is answered keeps no listener on a connection that stays open.
    const staying = new AbortController();
    const kept = await ask(modelOf('a'), texts('留', 1), { signal: staying.signal });
    await host.finish();
    expect(codes(await kept.answer)).toEqual(['ok']);
    staying.abort();
  });

  it('takes nothing from others who ask the same', async () => {
    await ask(modelOf('a'), texts('占', 6));
    const model = modelOf('b');
    const leaving = new AbortController();
    const gone = await ask(model, texts('同', 2), { signal: leaving.signal });
    const stays = await ask(model, texts('同', 2));
    leaving.abort();
    await host.finishAll();
    expect(codes(await gone.answer)).toEqual(['CANCELLED', 'CANCELLED']);
    expect(codes(await stays.answer)).toEqual(['ok', 'ok']);
  });
});

describe('what cannot be answered in time', () => {
  const soon = (ms: number) => ({ deadlineAt: Date.now() + ms });

  it('is refused before anything is tokenized, by the rate that was measured when the model was opened', async () => {
    const model = modelOf('a', { tokensPerMs: 0.1 });
    await ask(model, texts('占', 5));
    encoded = [];
    const hasty = await ask(model, texts('急', 1), soon(1000));
    await expect(hasty.answer).rejects.toMatchObject({ code: 'OVERLOADED', retryAfterMs: (5 * ROW_TOKENS) / 0.1 });
    expect(encoded).toEqual([]);
    const patient = await ask(model, texts('慢', 1), soon(60_000));
    await host.finishAll();
    expect(codes(await patient.answer)).toEqual(['ok']);
  });

  it('is so too where the queue has no room for the shortest text', async () => {
    const model = modelOf('a');
    await ask(model, texts('满', LIMITS.maxQueuedTokens / ROW_TOKENS));
    encoded = [];
    await expect((await ask(model, texts('多', 1))).answer).rejects.toMatchObject({ code: 'OVERLOADED' });
    expect(encoded).toEqual([]);
  });

  it('counts what is with the host, not the bulk that lets interactive work pass', async () => {
    // Six rows with the host are 192 ms, 24 more of bulk would be 768; no time passes here.
    vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'] });
    const model = modelOf('a', { tokensPerMs: 1 });
    await ask(model, texts('批', 30), { priority: 'bulk' });
    await expect((await ask(model, texts('急', 1), soon(200))).answer).rejects.toMatchObject({ code: 'OVERLOADED' });
    const taken = await ask(model, texts('急', 1), soon(500));
    const bulk = await ask(model, texts('迟', 1), { priority: 'bulk', ...soon(500) });
    await expect(bulk.answer).rejects.toMatchObject({ code: 'OVERLOADED' });
    await host.finishAll();
    expect(codes(await taken.answer)).toEqual(['ok']);
  });
});
