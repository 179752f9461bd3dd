import { afterEach, expect, it } from 'vitest';
import { AnswerTap } from '../inference/answer-tap.js';
import type { Outcome } from '../inference/engine.js';
import type { ClassifyRequest, Prediction, ServedModel } from '../inference/types.js';
import type { TaskDefinition } from '../task/types.js';
import { flipsOf, ShadowScoring } from './shadow-scoring.js';

const definition = {
  name: 'news',
  kind: 'single-label',
  labels: [
    { name: 'sport', was: ['sports'] },
    { name: 'food', was: [] },
  ],
} as unknown as TaskDefinition;
// Trained before the renaming.
const ownDefinition = {
  ...definition,
  labels: [
    { name: 'sports', was: [] },
    { name: 'food', was: [] },
  ],
} as unknown as TaskDefinition;
const model = { task: 'news', version: 2, definition: ownDefinition } as ServedModel;
const prediction = (label: string): Prediction => ({ label, labels: [label], confidence: 0.8 }) as Prediction;

let scoring: ShadowScoring | undefined;
afterEach(() => scoring?.stop());

function start(engine: { queuedTokens: number; answer?: (text: string) => string | Promise<string> }) {
  const tap = new AnswerTap();
  tap.open('news', { from: 1, watched: 2 });
  const requests: ClassifyRequest[] = [];
  const classify = async (_: ServedModel, request: ClassifyRequest): Promise<Outcome[]> => {
    requests.push(request);
    const labels = await Promise.all(request.items.map(async ({ text }) => engine.answer?.(text) ?? 'food'));
    return request.items.map(({ text }, i) => ({
      ok: true,
      prediction: prediction(labels[i]!),
      itemKey: text,
      embedding: new Float32Array(),
    }));
  };
  scoring = new ShadowScoring(
    model,
    definition,
    {
      classify,
      get queuedTokens() {
        return engine.queuedTokens;
      },
    },
    tap,
  );
  const offer = (texts: string[], label: string) =>
    tap.offer(
      'news',
      1,
      new Map(texts.map((text) => [text, { text }])),
      texts.map((text) => ({ ok: true, itemKey: text, prediction: prediction(label) })),
    );
  return { tap, requests, offer, scoring };
}

it('compares by the present names of labels, and counts flips', async () => {
  const {
    offer,
    tap,
    requests,
    scoring: own,
  } = start({ queuedTokens: 0, answer: (text) => (text === '二' ? 'food' : 'sport') });
  offer(['一', '二', '三', '四', '五'], 'sports');
  await expect.poll(() => tap.waiting('news')).toBe(0);
  await expect.poll(() => requests.length).toBe(2);
  const { counts, flips, disagreements } = own.take();
  expect(counts).toEqual({ answered: 0, compared: 5, changed: 1, failed: 0, missed: 0 });
  expect(flips).toEqual([{ champion: 'sport', challenger: 'food', texts: 1 }]);
  expect(disagreements.map(({ item }) => item.text)).toEqual(['二']);
  expect(requests.every(({ priority, anew, items }) => priority === 'background' && anew && items.length <= 4)).toBe(
    true,
  );
  expect(own.take()).toMatchObject({ counts: { compared: 0 }, flips: [], disagreements: [] });
});

it('is no flip where the version on trial has the older name', async () => {
  const { offer, tap, requests, scoring: own } = start({ queuedTokens: 0, answer: () => 'sports' });
  offer(['一', '二'], 'sport');
  await expect.poll(() => tap.waiting('news')).toBe(0);
  await expect.poll(() => requests.length).toBe(1);
  await own.stop();
  expect(own.take()).toMatchObject({ counts: { compared: 2, changed: 0 }, flips: [], disagreements: [] });
});

it('asks nothing while anything waits to be answered', async () => {
  const engine = { queuedTokens: 100 };
  const { offer, tap, requests } = start(engine);
  offer(['一'], 'food');
  await new Promise((resolve) => setTimeout(resolve, 120)); // several looks
  expect([requests.length, tap.waiting('news')]).toEqual([0, 1]);
  engine.queuedTokens = 0;
  await expect.poll(() => requests.length).toBe(1);
});

it('tells nothing of what it took before a text of the task was forgotten', async () => {
  const asked = Promise.withResolvers<void>();
  const held = Promise.withResolvers<string>();
  const answer = (text: string) => {
    if (text !== '二') return 'food';
    asked.resolve();
    return held.promise;
  };
  const { tap, offer, scoring: own } = start({ queuedTokens: 0, answer });
  offer(['一'], 'sport');
  await expect.poll(() => tap.waiting('news')).toBe(0);
  offer(['二'], 'sport');
  await asked.promise;
  offer(['三'], 'sport');
  tap.forget('news');
  offer(['四'], 'sport');
  held.resolve('food');
  await expect.poll(() => tap.waiting('news')).toBe(0);
  await own.stop();
  const { counts, disagreements } = own.take();
  expect(disagreements.map(({ item }) => item.text)).toEqual(['四']);
  expect(counts).toMatchObject({ compared: 2, missed: 2 });
});

it('of several labels, each that went and each that came is one', () => {
  const several = { ...definition, kind: 'multi-label' } as TaskDefinition;
  expect(flipsOf(several, ['sports', 'food'], ['food'])).toEqual([['sport', '(none)']]);
  expect(flipsOf(several, [], ['food', 'sport'])).toEqual([
    ['(none)', 'food'],
    ['(none)', 'sport'],
  ]);
  expect(flipsOf(several, ['food', 'sport'], ['sports', 'food'])).toEqual([]);
});
