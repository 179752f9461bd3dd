/** What a text costs, in counts that are the same on every machine: the speed of serving hangs on them. */
import { describe, expect, it } from 'vitest';
import { characterTokenizer, memoryModel, MemoryRunner } from '../../test/fixtures/memory-model.js';
import { batchTensors } from '../runtime/protocol.js';
import { InferenceEngine } from './engine.js';
import type { GraphRunner, ServedModel, TextTokenizer } from './types.js';

const BATCH_TOKENS = 256;
/** Whose allocations are counted. */
const REQUESTS = 200;
const engine = () =>
  new InferenceEngine({ maxBatchTokens: BATCH_TOKENS, maxConcurrentBatches: 2, maxQueuedTokens: 1e6 });
const oneTemplate = { templates: ['{text}很{mask}'], maxLength: 128 };

/** As reviews are: most short, few long; mean 41 characters. */
const texts = Array.from({ length: 256 }, (_, i) =>
  `${i}号`.padEnd(8 + Math.floor(112 * (((i * 37) % 256) / 256) ** 2), '好'),
);

function items(from = 0, to = texts.length) {
  return texts.slice(from, to).map((text) => ({ text }));
}

class CountingTokenizer implements TextTokenizer {
  readonly asked: string[][] = [];
  tokenToId = characterTokenizer.tokenToId;

  encode(all: string[]): Promise<number[][]> {
    this.asked.push(all);
    return characterTokenizer.encode(all);
  }
}

const passes = ({ batches }: MemoryRunner) => batches.reduce((sum, batch) => sum + batch.rows, 0);

/** Share of the tokens that a runner was given which stand for nothing. */
function padding({ batches }: MemoryRunner): number {
  const given = batches.reduce((sum, batch) => sum + batch.rows * batch.length, 0);
  const real = batches.reduce((sum, { attentionMask }) => sum + attentionMask.filter((bit) => bit === 1n).length, 0);
  return 1 - real / given;
}

async function singly(model: ServedModel, connections: number): Promise<void> {
  const serving = engine();
  const waiting = items().values();
  const connection = async () => {
    for (const item of waiting) await serving.classify(model, { items: [item], priority: 'interactive' });
  };
  await Promise.all(Array.from({ length: connections }, connection));
}

describe('passes', () => {
  it('are one a text and template', async () => {
    const [one, two] = [new MemoryRunner(), new MemoryRunner()];
    await engine().classify(memoryModel(one, {}, oneTemplate), { items: items(), priority: 'interactive' });
    await engine().classify(memoryModel(two), { items: items(), priority: 'interactive' });
    expect([passes(one), passes(two)]).toEqual([256, 512]);
  });

  it('are one for members that render alike on one graph, and for texts that come twice', async () => {
    const runner = new MemoryRunner();
    const model = memoryModel(runner, {}, oneTemplate);
    const committee = { ...model, members: ['a', 'b', 'c'].map((id) => ({ ...model.members[0]!, id })) };
    await engine().classify(committee, { items: [...items(0, 16), ...items(0, 16)], priority: 'interactive' });
    expect(passes(runner)).toBe(16);
  });
});

describe('padding', () => {
  it('is under 5 % of the tokens with 64 texts a request', async () => {
    const runner = new MemoryRunner();
    const model = memoryModel(runner, {}, oneTemplate);
    for (let i = 0; i < 256; i += 64)
      await engine().classify(model, { items: items(i, i + 64), priority: 'interactive' });
    expect(padding(runner)).toBeLessThan(0.05);
  });

  it('is under 5 % with 32 connections of single texts, in far fewer batches than texts', async () => {
    const runner = new MemoryRunner();
    await singly(memoryModel(runner, {}, oneTemplate), 32);
    expect(padding(runner)).toBeLessThan(0.05);
    expect(runner.batches.length).toBeLessThan(128);
    expect(passes(runner)).toBe(256);
  });
});

describe('the tokenizer', () => {
  it('is asked once a request, and of what every request has only the first time', async () => {
    const tokenizer = new CountingTokenizer();
    const model = memoryModel(new MemoryRunner(), { tokenizer });
    const serving = engine();
    const long = texts.filter((text) => text.length > 32).slice(0, 4);
    for (const text of long) await serving.classify(model, { items: [{ text }], priority: 'interactive' });
    expect(tokenizer.asked).toHaveLength(4);
    expect(tokenizer.asked.slice(1)).toEqual(long.slice(1).map((text) => [text]));
  });
});

describe('a batch on its way to a host', () => {
  it('is not copied: its tensors are what was packed, 24 bytes a padded token and the label words', async () => {
    const runner = new MemoryRunner();
    const model = memoryModel(runner, {}, oneTemplate);
    await engine().classify(model, { items: items(0, 64), priority: 'interactive' });
    for (const batch of runner.batches) {
      const tensors = batchTensors(batch);
      expect(tensors['input_ids']!.data).toBe(batch.inputIds);
      const bytes = Object.values(tensors).reduce((sum, { data }) => sum + data.byteLength, 0);
      const { rows, length, masks, words } = batch;
      expect(bytes).toBe(rows * (24 * length + 8 * masks + 8 * words * masks));
    }
  });
});

/** What the engine alone puts on V8's heap for a text, in bytes: ids are known, the graph has its answer ready. */
async function heapOfAText(textsPerRequest: number): Promise<number> {
  const known = ['很', '好', '赞', '差', ...texts];
  const ids = await characterTokenizer.encode(known);
  const idsOf = new Map(known.map((text, i) => [text, ids[i]!]));
  const tokenizer: TextTokenizer = {
    ...characterTokenizer,
    encode: async (all) => all.map((text) => idsOf.get(text)!),
  };
  const values = new Float32Array(BATCH_TOKENS);
  const runner: GraphRunner = {
    run: async ({ rows, words }) => ({
      logits: values.subarray(0, rows * words),
      embeddings: values.subarray(0, rows * 2),
    }),
  };
  const model = memoryModel(runner, { tokenizer }, oneTemplate);
  const serving = engine();
  const bytes: number[] = [];
  for (let i = 0; i < REQUESTS; i++) {
    const from = (i * textsPerRequest) % texts.length;
    const request = { items: items(from, from + textsPerRequest), priority: 'interactive' } as const;
    const before = process.memoryUsage().heapUsed;
    const outcomes = await serving.classify(model, request);
    bytes.push(process.memoryUsage().heapUsed - before);
    expect(outcomes.every(({ ok }) => ok)).toBe(true);
  }
  // A collection falls within few requests, code is compiled within the first: the median knows of neither.
  return bytes.toSorted((a, b) => a - b)[REQUESTS / 2]! / textsPerRequest;
}

describe('allocations', () => {
  // Ten runs: 51.6 to 51.8 KB, and 30.9 to 31.2 KB.
  it('are under 77 KB a text that comes alone, 47 KB of 64 in a request', async () => {
    expect(await heapOfAText(1)).toBeLessThan(77_000);
    expect(await heapOfAText(64)).toBeLessThan(47_000);
  });
});
