import { describe, expect, it } from 'vitest';
import { classifierMember } from '../../test/fixtures/classifier-bundle.js';
import { MemoryRunner, memoryModel } from '../../test/fixtures/memory-model.js';
import { InferenceEngine } from './engine.js';
import { encodingsOf } from './pipeline.js';
import type { Member } from './types.js';

const LIMITS = { maxBatchTokens: 256, maxConcurrentBatches: 2, maxQueuedTokens: 4000 };
const LABELS = [
  { name: 'good', words: ['好'], description: '这是好评。' },
  { name: 'bad', words: ['差'], description: '这是差评。' },
  { name: 'other', words: ['别'], description: '与此无关。' },
];
const hypotheses = Object.fromEntries(LABELS.map(({ name, description }) => [name, description]));

function setup(members: Member[], outputs: Record<string, number>, task: object = {}) {
  const runner = new MemoryRunner(outputs);
  const model = memoryModel(runner, { members }, { labels: LABELS, ...task });
  const engine = new InferenceEngine(LIMITS);
  const ask = async (text: string, textPair?: string) => {
    const [scores] = await engine.rawScores(model, [textPair === undefined ? { text } : { text, textPair }]);
    if (!scores?.ok) throw scores?.error ?? new Error('no scores');
    return scores;
  };
  return { runner, model, engine, ask };
}

const asText = (ids: bigint[]) =>
  ids
    .map((id) =>
      id < 10n ? `[${['PAD', 'UNK', 'CLS', 'SEP', 'MASK'][Number(id)]}]` : String.fromCodePoint(Number(id) - 10),
    )
    .join('');
const sin = (x: number) => Math.fround(Math.sin(x));

describe('members of other methods than PET', () => {
  it('has an output a label, without masks and words', async () => {
    const { runner, model, ask } = setup([classifierMember({})], { c0: 3 });
    const { members } = await ask('不错');
    const sum = 2 + 3 + Array.from('不错').reduce((total, c) => total + 10 + c.codePointAt(0)!, 0);
    expect(members[0]!.scores).toEqual([0, 1, 2].map((output) => sin(sum * 0.001 + output)));
    expect(runner.batches[0]).toMatchObject({ words: 0, masks: 0, rows: 1 });
    const encodings = await encodingsOf(model, model.members[0]!, { text: '不错' });
    expect(encodings).toMatchObject([{ maskPositions: [], typeIds: [0, 0, 0, 0] }]);
  });

  it.each(['single-label', 'multi-label'])(
    '%s: takes labels that are called as what every object has',
    async (kind) => {
      const said = async (name: string) => {
        const labels = [{ name, description: '这是好评。' }, ...LABELS.slice(1)];
        const { model, engine } = setup([classifierMember({})], { c0: 3 }, { kind, labels, method: 'fine-tune' });
        const [outcome] = await engine.classify(model, { items: [{ text: '不错' }], priority: 'bulk' });
        if (!outcome!.ok) throw outcome!.error;
        const { distribution, labels: chosen } = outcome!.prediction;
        return { distribution, chosen };
      };
      const usual = await said('good');
      const renamed = JSON.parse(JSON.stringify(usual).replaceAll('"good"', '"constructor"')) as typeof usual;
      expect(await said('constructor')).toEqual(renamed);
      expect(JSON.stringify(renamed)).toContain('constructor');
    },
  );

  it('shows what is too long around a span, and cut at its end where it was trained so', async () => {
    const { model } = setup([classifierMember({ template: '{aspect}{sep}{text}' })], { c0: 3 }, { maxLength: 12 });
    const item = { text: '房间不大早餐不错屏幕好', fields: { aspect: '屏幕' } };
    const shown = async (cutsAtEnds?: boolean) => {
      const [encoding] = await encodingsOf({ ...model, cutsAtEnds }, model.members[0]!, item);
      return asText(encoding!.ids.map(BigInt));
    };
    expect(await shown()).toBe('[CLS]屏幕[SEP]早餐不错屏幕好[SEP]');
    expect(await shown(true)).toBe('[CLS]屏幕[SEP]房间不大早餐不[SEP]');
  });

  it('a pair is two segments', async () => {
    const task = { kind: 'sentence-pair', templates: ['{text}{mask}{textPair}'] };
    const { runner, ask } = setup(
      [classifierMember({ method: 'efl', template: '{text}{sep}{textPair}' })],
      { c0: 3 },
      task,
    );
    await ask('好', '不差');
    const [batch] = runner.batches;
    expect(asText([...batch!.inputIds])).toBe('[CLS]好[SEP]不差[SEP]');
    expect([...batch!.tokenTypeIds]).toEqual([0n, 0n, 0n, 1n, 1n, 1n]);
  });

  it('a tagging member has a row a label, and the difference of its two outputs for a score', async () => {
    const tagging = classifierMember({ method: 'efl', template: '{text}{sep}{hypothesis}', hypotheses });
    const { runner, ask } = setup([tagging], { c0: 2 });
    const { members } = await ask('不错');
    const rows = runner.batches.flatMap((batch) =>
      Array.from({ length: batch.rows }, (_, i) =>
        Array.from(batch.inputIds.subarray(i * batch.length, (i + 1) * batch.length)),
      ),
    );
    expect(rows.map(asText)).toEqual(LABELS.map(({ description }) => `[CLS]不错[SEP]${description}[SEP]`));
    const sums = rows.map((row) => row.reduce((total, id) => total + Number(id), 0) * 0.001);
    expect(members[0]!.scores).toEqual(sums.map((sum) => sin(sum + 1) - sin(sum)));
  });

  it.each([Number.NaN, Number.NEGATIVE_INFINITY])('fails the text alone of which a score is %s', async (score) => {
    const { model, engine, runner } = setup([classifierMember({})], { c0: 3 });
    const run = runner.run.bind(runner);
    runner.run = async (batch) => {
      const result = await run(batch);
      for (let row = 0; row < batch.rows; row++) {
        const ids = [...batch.inputIds].slice(row * batch.length, (row + 1) * batch.length);
        if (asText(ids).includes('坏')) result.logits[row * 3 + 1] = score;
      }
      return result;
    };
    const outcomes = await engine.classify(model, { items: [{ text: '不错' }, { text: '太坏' }], priority: 'bulk' });
    expect(outcomes).toMatchObject([{ ok: true }, { ok: false, error: { code: 'INTERNAL' } }]);
    expect(runner.batches).toHaveLength(1);
  });

  it('works beside a PET member, and its offsets count', async () => {
    const pet = classifierMember({
      id: 'p',
      method: 'pet',
      graph: 'g0',
      template: '{text}很{mask}',
      labelWords: { good: ['好'], bad: ['差'], other: ['别'] },
    });
    const { model, engine } = setup([pet, classifierMember({ offsets: { bad: 50 } })], { c0: 3 });
    const [outcome] = await engine.classify(model, { items: [{ text: '不错' }], priority: 'interactive' });
    expect(outcome).toMatchObject({
      ok: true,
      prediction: {
        disagreement: { voters: 2 },
        members: [{ member: 'p' }, { member: 'm0', label: 'bad', labels: ['bad'] }],
      },
    });
  });
});

describe('the shortlist', () => {
  // The memory graph's embedding is [sum of ids, 0]: larger first numbers are nearer.
  const vectors = { good: [0.1, 9], bad: [0.3, 0], other: [0.2, 0] };
  const tagging = classifierMember({ method: 'efl', template: '{text}{sep}{hypothesis}', hypotheses });

  it('asks about the labels that are nearest to the text alone; the others cannot be', async () => {
    const { runner, model, engine, ask } = setup([{ ...tagging, shortlist: { size: 2, vectors } }], { c0: 2 });
    const { members, embedding } = await ask('不错');
    const whole = setup([tagging], { c0: 2 });
    const unlisted = await whole.ask('不错');
    expect(members[0]!.scores).toEqual([-1e9, ...unlisted.members[0]!.scores.slice(1)]);
    // Golden texts hold the rows of all labels.
    const [listed, all] = [model, whole.model].map(({ members: [own] }) => encodingsOf(model, own!, { text: '不错' }));
    expect(await listed).toEqual(await all);
    expect(await listed).toHaveLength(3);
    expect(runner.batches.map(({ rows }) => rows)).toEqual([1, 2]);
    const [first] = runner.batches;
    expect(asText([...first!.inputIds])).toBe('[CLS]不错[SEP]');
    expect(embedding[0]).toBe(Number(first!.inputIds.reduce((a, b) => a + b)));
    const [outcome] = await engine.classify(model, { items: [{ text: '不错' }], priority: 'interactive' });
    expect(outcome).toMatchObject({ prediction: { distribution: [{}, {}, { label: 'good', probability: 0 }] } });
  });

  it('tokenizes nothing of the labels that it leaves out', async () => {
    const { model, engine } = setup([{ ...tagging, shortlist: { size: 2, vectors } }], { c0: 2 });
    const encoded: string[] = [];
    const encode = (texts: string[]) => (encoded.push(...texts), model.tokenizer.encode(texts));
    const tokenizer = { ...model.tokenizer, encode };
    await engine.classify({ ...model, tokenizer }, { items: [{ text: '不错' }], priority: 'interactive' });
    expect(encoded).toEqual(['不错', '这是差评。', '与此无关。']);
  });

  it.each([
    ['a text', 1, false],
    ['many texts', 500, true],
  ])('%s: others get their turn: %s', async (_name, count, expected) => {
    const { model, engine } = setup([{ ...tagging, shortlist: { size: 2, vectors } }], { c0: 2 });
    const items = Array.from({ length: count }, (_, i) => ({ text: `第${i}条` }));
    let hadTurn = false;
    const turn = setImmediate(() => (hadTurn = true));
    const outcomes = await engine.classify(model, { items, priority: 'interactive' });
    clearImmediate(turn);
    expect([outcomes.every(({ ok }) => ok), hadTurn]).toEqual([true, expected]);
  });

  it('ranks by the text as the task’s input shows it', async () => {
    const member = { ...tagging, template: '{title}{sep}{text}{sep}{hypothesis}', shortlist: { size: 1, vectors } };
    const { runner, engine, model } = setup([member], { c0: 2 }, { method: 'efl', input: '{title}{sep}{text}' });
    await engine.rawScores(model, [{ text: '不错', fields: { title: '书' } }]);
    const [alone, beside] = runner.batches.map(({ inputIds }) => asText([...inputIds]));
    expect(alone).toBe('[CLS]书[SEP]不错[SEP]');
    expect(beside).toBe('[CLS]书[SEP]不错[SEP]这是差评。[SEP]');
  });

  it('of equally near labels takes the definition’s first', async () => {
    const same = { good: [1, 0], bad: [1, 0], other: [1, 0] };
    const { ask } = setup([{ ...tagging, shortlist: { size: 1, vectors: same } }], { c0: 2 });
    const { members } = await ask('不错');
    expect(members[0]!.scores.map((score) => score > -1e9)).toEqual([true, false, false]);
  });

  it('fails the item whose embedding is no number: no label is near to it', async () => {
    const { runner, model, engine } = setup([{ ...tagging, shortlist: { size: 2, vectors } }], { c0: 2 });
    const run = runner.run.bind(runner);
    runner.run = async (batch) => ({ ...(await run(batch)), embeddings: new Float32Array(batch.rows * 2).fill(NaN) });
    const [outcome] = await engine.classify(model, { items: [{ text: '不错' }], priority: 'interactive' });
    expect(outcome).toMatchObject({ ok: false, error: { code: 'INTERNAL' } });
  });

  it('fails the item where the graph fails', async () => {
    const { runner, model, engine } = setup([{ ...tagging, shortlist: { size: 2, vectors } }], { c0: 2 });
    runner.failing = new Error('gone');
    const [outcome] = await engine.classify(model, { items: [{ text: '不错' }], priority: 'interactive' });
    expect(outcome).toMatchObject({ ok: false, error: { code: 'INTERNAL' } });
  });
});
