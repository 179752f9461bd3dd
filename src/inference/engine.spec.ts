import * as fc from 'fast-check';
import { setTimeout } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { MemoryRunner, memoryModel } from '../../test/fixtures/memory-model.js';
import type { Item } from '../task/types.js';
import { InferenceEngine, type Outcome } from './engine.js';
import { ServedWindows } from './served-windows.js';
import type { ClassifyRequest } from './types.js';

const LIMITS = { maxBatchTokens: 256, maxConcurrentBatches: 2, maxQueuedTokens: 4000 };

const request = (items: Item[], change: Partial<ClassifyRequest> = {}): ClassifyRequest => ({
  items,
  priority: 'interactive',
  ...change,
});
const texts = (...all: string[]) => all.map((text): Item => ({ text }));
const codes = (outcomes: Outcome[]) => outcomes.map((outcome) => (outcome.ok ? 'ok' : outcome.error.code));

function setup() {
  const runner = new MemoryRunner();
  let open = (): void => undefined;
  runner.gate = new Promise((resolve) => (open = resolve));
  return { runner, model: memoryModel(runner), engine: new InferenceEngine(LIMITS), open };
}

describe('InferenceEngine', () => {
  it('answers in order, with everything a prediction has', async () => {
    const { model, engine, open } = setup();
    open();
    const [outcome] = await engine.classify(model, request(texts('不错')));
    expect(outcome).toMatchObject({
      ok: true,
      itemKey: expect.stringMatching(/^[0-9a-f]{64}$/u),
      embedding: expect.any(Float32Array),
      prediction: {
        calibrated: false,
        route: 'REVIEW',
        modelVersion: 3,
        taskRevision: 2,
        disagreement: { voters: 2 },
        members: [
          { member: 't0-zero', weight: 0.5 },
          { member: 't1-zero', weight: 0.5 },
        ],
      },
    });
  });

  it('fails a bad item alone and answers the other 63', async () => {
    const { model, engine, open } = setup();
    open();
    const items = texts(...Array.from({ length: 64 }, (_, i) => `第${i}条评论`));
    items[17] = { text: ' \u3000' };
    const outcomes = await engine.classify(model, request(items));
    expect(codes(outcomes)).toEqual(items.map((_, i) => (i === 17 ? 'BAD_INPUT' : 'ok')));
    expect(outcomes[17]).toMatchObject({ error: { field: 'text' } });
  });

  it('fails one item whose choices cannot be scored, and not its neighbour', async () => {
    const runner = new MemoryRunner();
    const model = memoryModel(runner, {}, { kind: 'multiple-choice', labels: [], templates: ['{text|blank:#x#}'] });
    const outcomes = await new InferenceEngine(LIMITS).classify(
      model,
      request([
        { text: '他#x#了', choices: ['高兴', '伤心', '累坏'] },
        { text: '他#x#了', choices: ['高兴', '累'] },
        { text: '他#x#了', choices: ['😀', '累'] },
      ]),
    );
    expect(codes(outcomes)).toEqual(['ok', 'BAD_INPUT', 'BAD_INPUT']);
    expect(outcomes[0]).toMatchObject({ prediction: { label: expect.stringMatching(/高兴|伤心|累坏/u) } });
    expect(outcomes[1]).toMatchObject({ error: { field: 'choices' } });
  });

  it('scores what is identical once', async () => {
    const { runner, model, engine, open } = setup();
    open();
    const outcomes = await engine.classify(model, request(texts('好', '坏', '好', '好')));
    expect(runner.batches.reduce((rows, batch) => rows + batch.rows, 0)).toBe(4);
    expect(outcomes[2]).toEqual(outcomes[0]);
  });

  it('answers the same whatever it is batched with', async () => {
    const { model, engine, open } = setup();
    open();
    const lengths = fc.array(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 60 }), { maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(lengths, async (all) => {
        const together = await engine.classify(model, request(texts(...all)));
        const alone = await Promise.all(all.map((text) => engine.classify(model, request(texts(text)))));
        expect(together).toEqual(alone.flat());
      }),
      { numRuns: 40 },
    );
  });

  it('keeps batches within the budget and the hosts busy, not flooded', async () => {
    const { runner, model, engine, open } = setup();
    const answers = engine.classify(model, request(texts(...Array.from({ length: 60 }, (_, i) => '字'.repeat(i + 1)))));
    await new Promise(setImmediate);
    open();
    await answers;
    expect(runner.mostInFlight).toBe(2);
    for (const batch of runner.batches) expect(batch.rows * batch.length).toBeLessThanOrEqual(256);
  });

  it('drops late work before it reaches a model', async () => {
    const { runner, model, engine, open } = setup();
    const past = await engine.classify(model, request(texts('好'), { deadlineAt: Date.now() - 1 }));
    expect(codes(past)).toEqual(['DEADLINE_EXCEEDED']);
    const blocking = Array.from({ length: 30 }, (_, i) => `占住队列的很长很长很长很长的评论${i}`);
    const first = engine.classify(model, request(texts(...blocking)));
    const late = await engine.classify(model, request(texts('晚到的'), { deadlineAt: Date.now() + 30 }));
    expect(codes(late)).toEqual(['DEADLINE_EXCEEDED']);
    const before = runner.batches.reduce((rows, batch) => rows + batch.rows, 0);
    expect(before).toBeLessThan(60);
    open();
    expect(codes(await first)).toEqual(blocking.map(() => 'ok'));
    expect(runner.batches.reduce((rows, batch) => rows + batch.rows, 0)).toBe(60);
  });

  it('refuses what it cannot score soon, bulk first, and takes more when that is done', async () => {
    const { model, engine, open } = setup();
    const many = (tag: string, n: number) =>
      texts(...Array.from({ length: n }, (_, i) => `${tag}${i}`.padEnd(26, '字')));
    const first = engine.classify(model, request(many('a', 25)));
    await new Promise(setImmediate);
    const bulk = engine.classify(model, request(many('b', 20), { priority: 'bulk' }));
    await expect(bulk).rejects.toMatchObject({ code: 'OVERLOADED', retryAfterMs: expect.any(Number) });
    const second = engine.classify(model, request(many('c', 20)));
    await expect(engine.classify(model, request(many('d', 40)))).rejects.toMatchObject({ code: 'OVERLOADED' });
    open();
    await Promise.all([first, second]);
    expect(codes(await engine.classify(model, request(many('e', 90))))).toContain('ok');
  });

  it('refuses at once what would wait beyond its deadline, and takes what has time', async () => {
    const runner = new MemoryRunner();
    const engine = new InferenceEngine({ ...LIMITS, maxQueuedTokens: 1e6 });
    const run = runner.run.bind(runner);
    runner.run = async (batch) => (await setTimeout(50), run(batch));
    const model = memoryModel(runner);
    const many = (tag: string) => texts(...Array.from({ length: 100 }, (_, i) => `${tag}${i}`.padEnd(26, '字')));
    // With nothing before it any deadline has its try, and so has every one before there is a measurement.
    expect(codes(await engine.classify(model, request(many('a'), { deadlineAt: Date.now() + 60_000 })))).toContain(
      'ok',
    );
    const first = engine.classify(model, request(many('b')));
    await new Promise(setImmediate);
    const hasty = engine.classify(model, request(texts('急'), { deadlineAt: Date.now() + 100 }));
    await expect(hasty).rejects.toMatchObject({ code: 'OVERLOADED', retryAfterMs: expect.any(Number) });
    const patient = engine.classify(model, request(texts('不急'), { deadlineAt: Date.now() + 60_000 }));
    expect(codes(await patient)).toEqual(['ok']);
    await first;
  });

  it('keeps room for requests beside bulk work that is larger than the queue', async () => {
    const { model, engine, open } = setup();
    const many = (tag: string, n: number) =>
      texts(...Array.from({ length: n }, (_, i) => `${tag}${i}`.padEnd(26, '字')));
    const bulk = engine.classify(model, request(many('a', 90), { priority: 'bulk' }));
    await new Promise(setImmediate);
    const more = engine.classify(model, request(many('b', 2), { priority: 'bulk' }));
    await expect(more).rejects.toMatchObject({ code: 'OVERLOADED' });
    const first = engine.classify(model, request(many('c', 90)));
    await new Promise(setImmediate);
    await expect(engine.classify(model, request(many('d', 2)))).rejects.toMatchObject({ code: 'OVERLOADED' });
    open();
    await Promise.all([bulk, first]);
    expect(codes(await engine.classify(model, request(many('e', 2), { priority: 'bulk' })))).toEqual(['ok', 'ok']);
  });

  it('a failing host fails its batch with INTERNAL', async () => {
    const { runner, model, engine, open } = setup();
    open();
    runner.failing = new Error('segmentation fault');
    const [outcome] = await engine.classify(model, request(texts('好')));
    expect(outcome).toMatchObject({ ok: false, error: { code: 'INTERNAL' } });
    runner.failing = null;
    expect(codes(await engine.classify(model, request(texts('好'))))).toEqual(['ok']);
  });

  it('serves interactive work before bulk', async () => {
    const { runner, model, engine, open } = setup();
    const long = (tag: string) => texts(...Array.from({ length: 20 }, (_, i) => `${tag}${i}`.padEnd(26, '字')));
    const bulk = engine.classify(model, request(long('批'), { priority: 'bulk' }));
    await new Promise(setImmediate);
    const done: string[] = [];
    const all = [
      bulk.then(() => done.push('bulk')),
      engine.classify(model, request(texts('急'))).then(() => done.push('interactive')),
    ];
    await new Promise(setImmediate);
    open();
    await Promise.all(all);
    expect(done).toEqual(['interactive', 'bulk']);
    expect(runner.batches.length).toBeGreaterThan(3);
  });
});

describe('policies', () => {
  const policies = { ensemble: { temperature: 1, calibrated: false }, student: { temperature: 2, calibrated: true } };

  it('asks the student alone, at its own temperature', async () => {
    const runner = new MemoryRunner();
    const model = memoryModel(runner, { policies });
    model.members[1]!.role = 'student';
    const engine = new InferenceEngine(LIMITS);
    const [outcome] = await engine.classify(model, request(texts('好'), { policy: 'student' }));
    expect(outcome).toMatchObject({ ok: true, prediction: { calibrated: true, disagreement: null } });
  });

  it('refuses a policy that the version lacks; the task may fall back', async () => {
    const model = memoryModel(new MemoryRunner(), {}, { serving: { policy: 'student' } });
    const engine = new InferenceEngine(LIMITS);
    for (const policy of ['student', 'cascade'] as const) {
      const refused = engine.classify(model, request(texts('好'), { policy }));
      await expect(refused).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'policy' });
    }
    expect(codes(await engine.classify(model, request(texts('好'))))).toEqual(['ok']);
  });

  describe('cascade', () => {
    const calibrated = { temperature: 1, calibrated: true };
    const cascade = (accept: number) => {
      const runner = new MemoryRunner();
      const model = memoryModel(
        runner,
        { policies: { ensemble: calibrated, student: calibrated } },
        { serving: { policy: 'cascade' }, routing: { accept } },
      );
      model.members.push({ ...model.members[1]!, id: 'student', role: 'student' });
      const rows = () => runner.batches.reduce((sum, batch) => sum + batch.rows, 0);
      return { model, rows, engine: new InferenceEngine(LIMITS) };
    };

    it('asks the teachers only about what the student is not sure of', async () => {
      const items = texts(...Array.from({ length: 12 }, (_, i) => `第${i}条评论很${'好'.repeat(i)}`));
      const alone = cascade(0.5);
      const student = await alone.engine.classify(alone.model, request(items, { policy: 'student' }));
      const sure = student.map((outcome) => (outcome.ok ? outcome.prediction.confidence : 0));
      const accept = [...sure].sort((a, b) => a - b)[4]!;
      const { model, engine, rows } = cascade(accept);
      const outcomes = await engine.classify(model, request(items));
      // A row of the student's for each, and two of the teachers' for each doubtful one.
      expect(rows()).toBe(12 + 2 * 4);
      outcomes.forEach((outcome, i) => {
        const members = outcome.ok ? outcome.prediction.members.map(({ member }) => member) : [];
        expect(members).toEqual(sure[i]! < accept ? ['t0-zero', 't1-zero'] : ['student']);
      });
    });

    it('asks them about what would be reviewed, however sure the student is', async () => {
      const { model, engine } = cascade(0);
      model.policies.student = { temperature: 1, calibrated: false };
      const [outcome] = await engine.classify(model, request(texts('好')));
      expect(outcome).toMatchObject({ ok: true, prediction: { calibrated: true, disagreement: { voters: 2 } } });
    });

    describe('with a temperature of its own', () => {
      const five = () => {
        const { model, engine, rows } = cascade(1);
        model.policies.cascade = { temperature: 3, calibrated: true };
        const [first, second, student] = model.members;
        // The lightest first: whom it begins with is by weight, not by place.
        const teachers = [first!, second!, first!, second!, first!].map((member, i) => ({
          ...member,
          id: `t${i}`,
          template: `${'很'.repeat(i)}${member.template}`,
          weight: [1, 2, 3, 4, 60][i]!,
        }));
        model.members = [...teachers, student!];
        return { model, engine, rows };
      };
      const items = texts(...Array.from({ length: 40 }, (_, i) => `第${i}条评论很${'好'.repeat(i % 20)}`));

      it('asks the teachers by weight until the label is certain, which is the ensemble’s', async () => {
        const { model, engine, rows } = five();
        const full = await engine.classify(model, request(items, { policy: 'ensemble' }));
        const before = rows();
        const outcomes = await engine.classify(model, request(items));
        const asked = outcomes.map((outcome, i) => {
          const [one, all] = [outcome, full[i]!].map((of) => (of.ok ? of.prediction : undefined));
          expect(one!.label).toBe(all!.label);
          const ids = one!.members.map(({ member }) => member);
          expect(ids).toEqual(['t4', 't3', 't2', 't1', 't0'].slice(0, ids.length));
          expect(one!.disagreement?.voters ?? 1).toBe(ids.length);
          const own = all!.members.filter(({ member }) => ids.includes(member));
          for (const { member, distribution } of own)
            expect(one!.members.find((said) => said.member === member)!.distribution).toEqual(distribution);
          return ids.length;
        });
        expect(rows() - before).toBe(40 + asked.reduce((sum, count) => sum + count, 0));
        expect(Math.min(...asked)).toBe(1);
        expect(Math.max(...asked)).toBeGreaterThan(1);
      });

      it('answers at that temperature', async () => {
        const [cold, warm] = [five(), five()];
        warm.model.policies.cascade = { temperature: 1, calibrated: true };
        const [first, second] = await Promise.all(
          [cold, warm].map(({ model, engine }) => engine.classify(model, request(items))),
        );
        first!.forEach((outcome, i) => {
          const other = second![i]!;
          const [a, b] = [outcome.ok && outcome.prediction, other.ok && other.prediction];
          expect(a && b && a.confidence < b.confidence).toBe(true);
        });
      });

      it('fails the texts that a later teacher could not be asked about, and no other', async () => {
        const [whole, broken] = [five(), five()];
        const asked = (await whole.engine.classify(whole.model, request(items))).map(
          (outcome) => outcome.ok && outcome.prediction.members.length,
        );
        const runner = broken.model.runner as MemoryRunner;
        const run = runner.run.bind(runner);
        runner.run = (batch) => {
          // A row of each text for the student and one for the first teacher.
          if (broken.rows() >= 2 * items.length) runner.failing = new Error('gone');
          return run(batch);
        };
        const outcomes = await broken.engine.classify(broken.model, request(items));
        expect(codes(outcomes)).toEqual(asked.map((count) => (count === 1 ? 'ok' : 'INTERNAL')));
        expect(new Set(codes(outcomes)).size).toBe(2);
      });
    });

    it('is the ensemble where a version has no student', async () => {
      const { model, engine } = cascade(0.5);
      model.members.pop();
      const [outcome] = await engine.classify(model, request(texts('好')));
      expect(outcome).toMatchObject({ ok: true, prediction: { disagreement: { voters: 2 } } });
    });
  });

  describe('recent answers', () => {
    const cached = { ...LIMITS, cacheBytes: 1_000_000 };

    it('are noted as often as they are given, so that a model shows what it says whatever is known of it', async () => {
      const asked = texts('好', '坏', '好', '好').map((item) => [item]);
      const noted = async (cacheBytes: number) => {
        const windows = new ServedWindows();
        const engine = new InferenceEngine({ ...LIMITS, cacheBytes, windows });
        const model = memoryModel(new MemoryRunner());
        for (const items of [...asked, texts('好', '快', '好', ' ')]) await engine.classify(model, request(items));
        await engine.classify(model, request(texts('好'), { anew: true }));
        await engine.classify(model, request(texts('好'), { priority: 'background' }));
        return windows.of(model.task, model.version, 0);
      };
      const { latenciesMs, ...warm } = await noted(1_000_000);
      const { latenciesMs: all, ...cold } = await noted(0);
      expect(warm).toEqual(cold);
      expect(warm).toMatchObject({ answered: 7, failed: 0 });
      // Of requests for which the model was asked.
      expect([latenciesMs.length, all.length]).toEqual([3, 5]);
    });

    it('costs nothing the second time, with the same answer', async () => {
      const runner = new MemoryRunner();
      const [model, engine] = [memoryModel(runner), new InferenceEngine(cached)];
      const first = await engine.classify(model, request(texts('好', '坏')));
      expect(runner.batches).not.toHaveLength(0);
      runner.batches.length = 0;
      expect(await engine.classify(model, request(texts('坏', '好')))).toEqual([...first].reverse());
      expect(runner.batches).toEqual([]);
    });

    it('is none where the deadline has passed already', async () => {
      const [model, engine] = [memoryModel(new MemoryRunner()), new InferenceEngine(cached)];
      await engine.classify(model, request(texts('好')));
      const late = await engine.classify(model, request(texts('好'), { deadlineAt: Date.now() - 1 }));
      expect(codes(late)).toEqual(['DEADLINE_EXCEEDED']);
    });

    it('keeps versions and policies apart', async () => {
      const runner = new MemoryRunner();
      const [before, after] = [memoryModel(runner), memoryModel(runner, { version: 4 })];
      before.members[1]!.role = 'student';
      const engine = new InferenceEngine(cached);
      const answers = [
        await engine.classify(before, request(texts('好'))),
        await engine.classify(before, request(texts('好'), { policy: 'student' })),
        await engine.classify(after, request(texts('好'))),
      ].flat();
      expect(answers.map((outcome) => outcome.ok && outcome.prediction.modelVersion)).toEqual([3, 3, 4]);
      const members = answers.map((outcome) => (outcome.ok ? outcome.prediction.members.map((m) => m.member) : []));
      expect(members).toEqual([['t0-zero'], ['t1-zero'], ['t0-zero', 't1-zero']]);
    });

    it('forgets the oldest where it is full, and what failed', async () => {
      const runner = new MemoryRunner();
      const [model, engine] = [memoryModel(runner), new InferenceEngine({ ...LIMITS, cacheBytes: 3000 })];
      runner.failing = new Error('gone');
      expect(codes(await engine.classify(model, request(texts('好'))))).toEqual(['INTERNAL']);
      runner.failing = null;
      for (const text of ['好', '一', '二', '三', '四']) await engine.classify(model, request(texts(text)));
      runner.batches.length = 0;
      expect(codes(await engine.classify(model, request(texts('四'))))).toEqual(['ok']);
      expect(runner.batches).toEqual([]);
      await engine.classify(model, request(texts('好')));
      expect(runner.batches).not.toEqual([]);
    });
  });

  it('shares a row between requests that ask the same at once', async () => {
    const { runner, model, engine, open } = setup();
    const busy = engine.classify(model, request(texts(...Array.from({ length: 20 }, (_, i) => `占住队列${i}`))));
    const asked = Array.from({ length: 5 }, () => engine.classify(model, request(texts('一样的'))));
    open();
    const [first, ...others] = await Promise.all(asked);
    await busy;
    for (const other of others) expect(other).toEqual(first);
    const rows = runner.batches.reduce((sum, batch) => sum + batch.rows, 0);
    expect(rows).toBe(2 * 20 + 2);
  });

  it('embeds by one member, and what was answered lately by that answer', async () => {
    const runner = new MemoryRunner();
    const model = memoryModel(runner);
    const engine = new InferenceEngine({ ...LIMITS, cacheBytes: 1e6 });
    const [answered] = await engine.classify(model, request(texts('好')));
    runner.batches.length = 0;
    const embeddings = await engine.embeddings(model, texts('坏', '好', '快'));
    expect(runner.batches.reduce((rows, batch) => rows + batch.rows, 0)).toBe(2);
    expect(embeddings[1]).toBe(answered!.ok && answered!.embedding);
    // As answers carry them, which all members are asked for.
    const asked = await new InferenceEngine(LIMITS).classify(model, request(texts('坏', '好', '快')));
    expect(embeddings).toEqual(asked.map((outcome) => outcome.ok && outcome.embedding));
  });

  it('has no embedding of what cannot be scored, and refuses where the queue is full', async () => {
    const runner = new MemoryRunner();
    const model = memoryModel(runner, {}, { kind: 'multiple-choice', labels: [], templates: ['{text|blank:#x#}'] });
    const items = [
      { text: '他#x#了', choices: ['高兴', '伤心'] },
      { text: '他#x#了', choices: ['😀', '累'] },
    ];
    expect(await new InferenceEngine(LIMITS).embeddings(model, items)).toEqual([expect.any(Float32Array), null]);
    const { engine, model: other } = setup();
    const many = texts(...Array.from({ length: 400 }, (_, i) => `第${i}条很长的评论，说了很多`));
    void engine.classify(other, request(many));
    await expect.poll(() => engine.queuedTokens).toBeGreaterThan(LIMITS.maxQueuedTokens / 2);
    await expect(engine.embeddings(other, texts('好'))).rejects.toMatchObject({ code: 'OVERLOADED' });
  });

  it('gives raw scores of every member, for empty texts too', async () => {
    const model = memoryModel(new MemoryRunner());
    const [raw] = await new InferenceEngine(LIMITS).rawScores(model, texts(''));
    expect(raw).toMatchObject({
      ok: true,
      labels: ['good', 'bad'],
      members: [
        { member: 't0-zero', scores: [expect.any(Number), expect.any(Number)] },
        { member: 't1-zero', scores: [expect.any(Number), expect.any(Number)] },
      ],
    });
  });
});
