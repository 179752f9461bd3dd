/** Questions that are asked once for several texts, of several labelers, again, and not by mistake. */
import type { INestApplicationContext } from '@nestjs/common';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Prediction } from '../../src/inference/types.js';
import { AgreementService } from '../../src/learning/agreement.js';
import { AuditService } from '../../src/learning/audit.js';
import { LabelIssues } from '../../src/learning/label-issues.js';
import { LedgerService } from '../../src/learning/ledger.js';
import { ForgetService } from '../../src/learning/forget.js';
import { PoolService } from '../../src/learning/pool.js';
import type { Question } from '../../src/learning/question-queue.js';
import { RevocationService } from '../../src/learning/revocation.js';
import { ReviewService } from '../../src/learning/review.js';
import { TaskService } from '../../src/learning/task-service.js';
import { AnswersRepository } from '../../src/storage/answers.repository.js';
import { CandidatesRepository } from '../../src/storage/candidates.repository.js';
import { ExampleService } from '../../src/learning/examples.js';
import { ExamplesRepository } from '../../src/storage/examples.repository.js';
import { TasksRepository } from '../../src/storage/tasks.repository.js';
import { TrainingTextsRepository } from '../../src/storage/training-texts.repository.js';
import { Transactions } from '../../src/storage/transactions.js';
import { fraction, itemKey, sha256, splitGroup, splitOf } from '../../src/task/keys.js';
import type { TaskDefinition } from '../../src/task/types.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile, texts } from '../fixtures/intake.js';
import { keyed } from '../fixtures/keyed.js';
import { renameLabel } from '../fixtures/learning.js';

const AUDIT_RATE = 0.2;

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let service: INestApplicationContext;
let review: ReviewService;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = mkdtempSync(join(tmpdir(), 'fewloop-asking-'));
  service = await startIntake({ url: database.url, dataDir, role: 'api' });
  await service.get(TaskService).apply(taskFile(), 'test');
  review = service.get(ReviewService);
});
afterEach(async () => {
  await service.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

/** Made up from the text. */
function prediction(text: string): Prediction {
  const confidence = 0.5 + (Number.parseInt(sha256(text).slice(0, 4), 16) % 50) / 100;
  const dissenting = Number.parseInt(sha256(text).slice(4, 8), 16) % 2;
  const label = Number.parseInt(sha256(text).slice(8, 12), 16) % 2 === 0 ? 'positive' : 'negative';
  return {
    label,
    labels: [label],
    confidence,
    calibrated: false,
    margin: 2 * confidence - 1,
    entropy: 1 - confidence,
    disagreement: {
      voters: 2,
      dissenting,
      unanimous: dissenting === 0,
      voteEntropy: dissenting * confidence,
      jensenShannon: dissenting * 0.3,
    },
    distribution: [],
    members: [],
    route: 'REVIEW',
    modelVersion: 1,
    taskRevision: 1,
  };
}

async function admit(list: string[], fields: Record<string, unknown> | null = null): Promise<void> {
  const definition = (await service.get(TaskService).get('tiny')).definition as TaskDefinition;
  const plain = { textPair: null, choices: null, fields };
  const scored = list.map((text) => ({
    item: { ...plain, itemKey: itemKey(fields ? { text, fields } : { text }), splitGroup: splitGroup(text), text },
    prediction: prediction(text),
  }));
  await service.get(PoolService).admit(definition, scored);
}

const isAudit = (text: string) => fraction('audit', 'tiny', splitGroup(text)) < AUDIT_RATE;
const isChosen = (text: string) => splitOf(splitGroup(text)) === 'train' && !isAudit(text);

/** Near-duplicates of one text: the first ones of those that the test wants. */
function variants(count: number, wanted: (text: string) => boolean): string[] {
  const base = '这家店的东西质量很好，发货也很快，包装完整，客服态度不错，下次还会再来购买，推荐给大家';
  const all = Array.from({ length: 400 }, (_, i) => `${base}${String.fromCharCode(0x4e00 + i)}`);
  return all.filter((text) => !text.endsWith('不') && wanted(text)).slice(0, count);
}

const queue = async (by = 'anna') => (await review.queue('tiny', { first: 200 }, by)).edges.map(({ node }) => node);
const example = async (text: string) =>
  (await service.get(ExamplesRepository).findByKeys('tiny', [itemKey({ text })]))[0];
const stored = async (text: string) => {
  const [row] = await service
    .get(DataSource)
    .query(`SELECT id FROM candidate WHERE item_key = $1`, [itemKey({ text })]);
  return (await service.get(CandidatesRepository).find(row.id as string))!;
};

describe('near-duplicates', () => {
  it('are one question with their count, which one answer closes, and no example each', async () => {
    const [first, ...others] = variants(5, isChosen);
    await admit([first!, ...others.slice(0, 2)]);
    await admit(others.slice(2));
    const asked = await queue();
    expect(asked.map(({ duplicates, reason }) => [duplicates, reason])).toEqual([[4, null]]);
    const answered = await review.label(asked[0]!.id, ['positive'], 'anna');
    expect(answered.duplicates).toBe(0);
    expect(await queue()).toEqual([]);
    for (const text of [first!, ...others]) {
      const row = await stored(text);
      const isAsked = row.id === asked[0]!.id;
      expect(row).toMatchObject({ state: 'LABELLED', labels: ['positive'], answeredBy: 'anna' });
      expect(row.servedBy).toBe(isAsked ? null : asked[0]!.id);
      expect((await example(text))?.split).toBe(isAsked ? 'train' : undefined);
    }
    // One question was answered, so the fifth is the audit's still.
    expect(await service.get(CandidatesRepository).countAsked('tiny', 'anna')).toBe(1);
    // One that comes later is not asked either.
    await admit([variants(6, isChosen)[5]!]);
    expect(await queue()).toEqual([]);
  });

  it('of the audit slice are asked themselves, all of them, and others of theirs by no strategy', async () => {
    const heldOut = variants(2, (text) => isAudit(text) && splitOf(splitGroup(text)) !== 'train');
    const train = variants(2, isChosen);
    await admit([...train, ...heldOut]);
    const asked = await queue();
    expect(asked.map(({ text }) => text).sort()).toEqual([...heldOut].sort());
    for (const { id } of asked) await review.label(id, ['negative'], 'anna');
    for (const text of heldOut) expect((await example(text))?.split).toBe(splitOf(splitGroup(text)));
    // Neither as examples nor as unlabelled texts do the others take part in training.
    for (const text of train) expect(await example(text)).toBeUndefined();
    expect(await service.get(TrainingTextsRepository).unlabelledForTraining('tiny', 10)).toEqual([]);
    expect(await queue()).toEqual([]);
  });

  it.each([
    ['a strategy chose', isChosen],
    ['the audit drew', isAudit],
  ])('are none where fields differ: each is asked, and answered for itself, of those that %s', async (_, wanted) => {
    const [text] = variants(1, wanted);
    // The same up to case and spaces, and with the same fields: one question.
    await admit([text!, `${text!} `], { brand: '甲' });
    await admit([text!], { brand: '乙' });
    await admit([text!]);
    const asked = await queue();
    const brands = asked.map(({ fields }) => fields?.brand ?? null);
    expect(brands).toHaveLength(3);
    expect(new Set(brands)).toEqual(new Set([null, '乙', '甲']));
    const of = (brand: string) => asked.find(({ fields }) => fields?.brand === brand)!;
    await review.label(of('甲').id, ['positive'], 'anna');
    expect((await queue()).map(({ id }) => id)).not.toContain(of('甲').id);
    expect(await queue()).toHaveLength(2);
    await review.label(of('乙').id, ['negative'], 'anna');
    const examples = await service.get(ExamplesRepository).list('tiny');
    expect(examples.map(({ fields, labels }) => [fields?.brand, labels])).toEqual([
      ['甲', ['positive']],
      ['乙', ['negative']],
    ]);
    expect(await queue()).toHaveLength(1);
  });

  it('are open again where the answer is undone', async () => {
    const list = variants(3, isChosen);
    await admit(list);
    const [question] = await queue();
    await review.label(question!.id, ['positive'], 'anna');
    expect(await review.undo('tiny', 'anna')).toMatchObject({ id: question!.id, duplicates: 2, state: 'OPEN' });
    for (const text of list) expect(await stored(text)).toMatchObject({ state: 'OPEN', labels: null, servedBy: null });
    expect(await service.get(ExamplesRepository).list('tiny')).toEqual([]);
    expect((await queue()).map(({ duplicates }) => duplicates)).toEqual([2]);
  });

  it('are open again where the answered text is forgotten', async () => {
    const list = variants(3, isChosen);
    await admit(list);
    const [question] = await queue();
    await review.label(question!.id, ['positive'], 'anna');
    const { candidates } = await service.get(ForgetService).forget('tiny', { id: question!.id }, 'test');
    expect(candidates).toBe(1);
    for (const text of list.filter((one) => one !== question!.text)) {
      expect(await stored(text)).toMatchObject({ state: 'OPEN', labels: null, answeredBy: null, servedBy: null });
    }
    expect((await queue()).map(({ duplicates }) => duplicates)).toEqual([1]);
  });
});

describe('filters', () => {
  it('leave the audit slice whole', async () => {
    await admit(texts(200));
    const filtered = async (filter: object): Promise<Question[]> => {
      const page = await review.queue('tiny', { first: 200, strategy: 'BREAKING_TIES', filter });
      expect(await review.count('tiny', { filter })).toBe(page.edges.length);
      return page.edges.map(({ node }) => node);
    };
    const all = await filtered({});
    const audits = all.filter(({ audit }) => audit).length;
    const holds: [object, (row: Question) => boolean][] = [
      [{ contested: true }, (row) => row.dissenting > 0],
      [{ contested: false }, (row) => row.dissenting === 0],
      [{ label: 'negative' }, (row) => row.predictedLabel === 'negative'],
      [{ maxConfidence: 0.7 }, (row) => row.confidence <= 0.7],
      [{ minVoteEntropy: 0.6 }, (row) => row.voteEntropy >= 0.6],
      [
        { minJensenShannon: 0.1, label: 'positive' },
        (row) => row.jensenShannon > 0 && row.predictedLabel === 'positive',
      ],
    ];
    for (const [filter, hold] of holds) {
      const rows = await filtered(filter);
      const chosen = rows.filter(({ audit }) => !audit);
      const expected = all.filter((row) => !row.audit && hold(row)).map(({ id }) => id);
      expect(chosen.map(({ id }) => id)).toEqual(expected);
      expect(expected.length).toBeGreaterThan(0);
      expect(rows.length - chosen.length).toBe(audits);
    }
  });

  it('by a label take those of the task, by former names too', async () => {
    const unknown = { code: 'BAD_INPUT', message: 'filter.label: "sport" is not one of fine, negative' };
    await renameLabel(service, 'positive', 'fine');
    for (const label of ['fine', 'positive']) {
      await expect(review.queue('tiny', { filter: { label } })).resolves.toBeDefined();
    }
    await expect(review.queue('tiny', { filter: { label: 'sport' } })).rejects.toMatchObject(unknown);
    await expect(review.lease('tiny', { filter: { label: 'sport' } }, 'ann')).rejects.toMatchObject(unknown);
  });
});

it('an import says with which labels the same text stands before', async () => {
  const rows = [
    { text: '很好', labels: ['positive'] },
    { text: '很好', labels: ['negative'] },
  ];
  const { added, rejected } = await service.get(ExampleService).import('tiny', rows, 'file');
  const message = 'labels: the same text stands before it with "positive"';
  expect([added, rejected]).toEqual([1, [{ index: 1, code: 'BAD_INPUT', message }]]);
});

describe('the strategy that asked', () => {
  it('is kept with the answer and its example, and its labels can be revoked', async () => {
    await admit(texts(120));
    const [leased] = (await review.lease('tiny', { first: 8, strategy: 'ENTROPY' }, 'anna')).filter(
      ({ audit }) => !audit,
    );
    const [named, plain] = (await queue('ben')).filter(({ audit }) => !audit);
    const [audited] = (await queue('ben')).filter(({ audit }) => audit);
    await review.label(leased!.id, ['positive'], 'anna');
    await review.label(named!.id, ['negative'], 'ben', 'BALD');
    await review.label(plain!.id, ['negative'], 'ben');
    await review.label(audited!.id, ['negative'], 'ben');
    const stored = await service
      .get(DataSource)
      .query<{ text: string; strategy: string | null }[]>('SELECT text, strategy FROM example');
    const strategies = new Map(stored.map(({ text, strategy }) => [text, strategy]));
    expect([leased, named, plain, audited].map((row) => strategies.get(row!.text))).toEqual([
      'ENTROPY',
      'BALD',
      null,
      'RANDOM_AUDIT',
    ]);
    const revoked = await service.get(RevocationService).revoke('tiny', { strategy: 'ENTROPY' }, 'eve');
    expect(revoked).toMatchObject({ examples: 1, dryRun: false });
    const left = (await service.get(ExamplesRepository).listSplit('tiny', 'train')).map(({ text }) => text);
    expect(left).not.toContain(leased!.text);
    expect(left).toEqual(expect.arrayContaining([named!.text, plain!.text]));
    // Taken back, it is as it was, its strategy too.
    await review.undo('tiny', 'anna');
    await review.label(leased!.id, ['positive'], 'anna');
    const [again] = await service.get(ExamplesRepository).findByKeys('tiny', [leased!.itemKey]);
    expect(again).toMatchObject({ strategy: 'ENTROPY', revokedAt: null });
  });
});

describe('leases', () => {
  it('two labelers who ask at once are never asked the same, and all is asked', async () => {
    await admit(texts(120));
    const total = await review.count('tiny', {});
    const names = ['anna', 'ben', 'chen', 'dora'];
    const holder = new Map<string, string>();
    const work = async (by: string): Promise<void> => {
      for (;;) {
        const questions = await review.lease('tiny', { first: 4 }, by);
        if (questions.length === 0) return;
        for (const { id } of questions) {
          expect(holder.get(id) ?? by).toBe(by);
          holder.set(id, by);
        }
        for (const { id } of questions) await review.label(id, ['positive'], by);
      }
    };
    await Promise.all(names.map(work));
    expect(holder.size).toBe(total);
    expect(new Set(holder.values()).size).toBeGreaterThan(1);
  });

  it('hide a question from others until they end or are given back, and are kept by who leases again', async () => {
    await admit(texts(40));
    const ids = (list: Question[]) => list.map(({ id }) => id).sort();
    const questions = await review.lease('tiny', { first: 6 }, 'anna');
    expect(questions).toHaveLength(6);
    expect(ids(await review.lease('tiny', { first: 6 }, 'anna'))).toEqual(ids(questions));
    const held = new Set(ids(questions));
    expect((await queue('ben')).some(({ id }) => held.has(id))).toBe(false);
    expect((await queue('anna')).filter(({ id }) => held.has(id))).toHaveLength(6);
    await service
      .get(DataSource)
      .query(`UPDATE candidate SET leased_until = now() - interval '1 second' WHERE id = $1`, [questions[0]!.id]);
    expect((await queue('ben')).map(({ id }) => id)).toContain(questions[0]!.id);
    await review.release('tiny', 'anna');
    expect((await queue('ben')).filter(({ id }) => held.has(id))).toHaveLength(6);
  });
});

describe('agreement', () => {
  beforeEach(async () => {
    await service.get(TaskService).apply(taskFile({ learning: { agreement: { share: 1 } } }), 'test');
    await admit(texts(60));
  });

  it('a drawn question is an example at once, and asked of another labeler first of all', async () => {
    const [question] = await queue('anna');
    await review.label(question!.id, ['positive'], 'anna');
    expect((await example(question!.text))?.labels).toEqual(['positive']);
    expect((await queue('anna')).map(({ id }) => id)).not.toContain(question!.id);
    const [second] = await queue('ben');
    expect(second).toMatchObject({ id: question!.id, reason: 'SECOND_ANSWER' });
    await expect(review.label(question!.id, ['negative'], 'anna')).rejects.toMatchObject({ code: 'CONFLICT' });
    await review.label(question!.id, ['positive'], 'ben');
    expect(await stored(question!.text)).toMatchObject({ reason: null, state: 'LABELLED', answeredBy: 'anna' });
    expect((await queue('chen')).map(({ id }) => id)).not.toContain(question!.id);
    expect(await service.get(AgreementService).of('tiny')).toEqual({
      alpha: null,
      questions: 1,
      disagreements: 0,
      waiting: 0,
      disputed: 0,
    });
  });

  it('where two differ a third decides; until then it is no example, and every answer is kept', async () => {
    const [first, other] = await queue('anna');
    await review.label(first!.id, ['positive'], 'anna');
    await review.label(other!.id, ['negative'], 'anna');
    await review.label(other!.id, ['negative'], 'ben');
    await review.label(first!.id, ['negative'], 'ben');
    expect(await example(first!.text)).toBeUndefined();
    for (const by of ['anna', 'ben']) {
      expect((await queue(by)).map(({ id }) => id)).not.toContain(first!.id);
      await expect(review.label(first!.id, [by === 'anna' ? 'negative' : 'positive'], by)).rejects.toMatchObject({
        code: 'CONFLICT',
      });
    }
    // Of two questions, on one of which they differ: observed 1/2, expected by three of one label and one of the other.
    const agreement = service.get(AgreementService);
    expect(await agreement.of('tiny')).toMatchObject({ questions: 2, disagreements: 1, disputed: 1, alpha: 0 });
    const [decide] = await queue('chen');
    expect(decide).toMatchObject({ id: first!.id, reason: 'ADJUDICATION' });
    for (const [minPriority, ids] of [
      [3, [first!.id]],
      [3.5, []],
    ] as const) {
      const request = { filter: { minPriority } };
      const { edges } = await review.queue('tiny', request, 'chen');
      expect(edges.map(({ node }) => node.id)).toEqual(ids);
      expect(await review.count('tiny', request, 'chen')).toBe(ids.length);
    }
    await review.label(first!.id, ['negative'], 'chen');
    expect(await example(first!.text)).toMatchObject({ labels: ['negative'], answeredBy: 'chen' });
    // The decision is not one of the two answers that are compared.
    expect(await agreement.of('tiny')).toMatchObject({ questions: 2, disagreements: 1, disputed: 0, alpha: 0 });
    const answers = await service.get(AnswersRepository).standing(first!.id);
    expect(answers.map(({ answeredBy, asked, labels }) => [answeredBy, asked, labels?.[0]])).toEqual([
      ['anna', first!.audit ? 'AUDIT' : 'STRATEGY', 'positive'],
      ['ben', 'SECOND_ANSWER', 'negative'],
      ['chen', 'ADJUDICATION', 'negative'],
    ]);
  });

  it('is of label sets, whatever the order of the labels was when they were given', async () => {
    const labels = ['positive', 'negative'].map((name) => ({ name, description: name }));
    const several = { name: 'several', kind: 'multi-label', method: ['fine-tune', 'efl'], templates: [] };
    const apply = (ordered: object[]) =>
      service
        .get(TaskService)
        .apply(taskFile({ ...several, labels: ordered, learning: { agreement: { share: 1 } } }), 'test');
    const definition = (await apply(labels)).definition as TaskDefinition;
    const [text] = texts(30).filter(isChosen);
    await service.get(PoolService).admit(definition, [{ item: keyed(text!), prediction: prediction(text!) }]);
    const [question] = (await review.queue('several', { first: 1 }, 'anna')).edges.map(({ node }) => node);
    await review.label(question!.id, ['positive', 'negative'], 'anna');
    await apply(labels.toReversed());
    const imported = [{ text: text!, labels: ['positive', 'negative'] }];
    expect(await service.get(ExampleService).import('several', imported, 'file')).toMatchObject({ unchanged: 1 });
    expect(await review.label(question!.id, ['positive', 'negative'], 'ben')).toMatchObject({ reason: null });
    expect(await service.get(AgreementService).of('several')).toMatchObject({ questions: 1, disagreements: 0 });
  });

  it('is of label sets whose labels became one meanwhile', async () => {
    const label = (name: string, ...was: string[]) => ({ name, description: name, was });
    const several = { name: 'several', kind: 'multi-label', method: ['fine-tune', 'efl'], templates: [] };
    const apply = (...labels: object[]) =>
      service.get(TaskService).apply(taskFile({ ...several, labels, learning: { agreement: { share: 1 } } }), 'test');
    const task = await apply(label('positive'), label('mixed'), label('negative'));
    const [text] = texts(30).filter(isChosen);
    const scored = { item: keyed(text!), prediction: prediction(text!) };
    await service.get(PoolService).admit(task.definition as TaskDefinition, [scored]);
    const [question] = (await review.queue('several', { first: 1 }, 'anna')).edges.map(({ node }) => node);
    await review.label(question!.id, ['positive', 'mixed', 'negative'], 'anna');
    await apply(label('positive', 'negative'), label('mixed'));
    const examples = service.get(ExampleService);
    expect((await examples.stats('several')).byLabel).toEqual({ positive: 1, mixed: 1 });
    const imported = [{ text: text!, labels: ['positive', 'mixed'] }];
    expect(await examples.import('several', imported, 'file')).toMatchObject({ unchanged: 1 });
    expect(await review.label(question!.id, ['positive', 'mixed'], 'ben')).toMatchObject({ reason: null });
    expect(await service.get(AgreementService).of('several')).toMatchObject({ questions: 1, disagreements: 0 });
  });

  it('is of answers that were taken back by the names that their labels have now', async () => {
    const [question] = await queue('anna');
    const { id, text } = question!;
    await review.label(id, ['positive'], 'anna');
    await review.label(id, ['negative'], 'ben');
    const labels = [
      { name: 'good', words: ['好'], was: ['positive'] },
      { name: 'negative', words: ['差'] },
    ];
    await service.get(TaskService).apply(taskFile({ labels, learning: { agreement: { share: 1 } } }), 'test');
    await review.undo('tiny', 'ben');
    expect(await stored(text)).toMatchObject({ reason: 'SECOND_ANSWER', labels: ['good'] });
    expect(await example(text)).toMatchObject({ labels: ['good'], answeredBy: 'anna' });
    expect(await review.label(id, ['good'], 'chen')).toMatchObject({ reason: null, labels: ['good'] });
  });

  it('a second labeler may skip; the question waits for another', async () => {
    const [question] = await queue('anna');
    await review.label(question!.id, ['positive'], 'anna');
    await review.skip(question!.id, 'unclear', 'ben');
    expect((await queue('ben')).map(({ id }) => id)).not.toContain(question!.id);
    expect((await queue('chen'))[0]?.id).toBe(question!.id);
    expect((await example(question!.text))?.labels).toEqual(['positive']);
  });

  it('each of the answers can be undone, the newest first', async () => {
    const [question] = await queue('anna');
    const { id, text } = question!;
    await review.label(id, ['positive'], 'anna');
    await review.label(id, ['negative'], 'ben');
    await review.label(id, ['negative'], 'chen');
    await expect(review.undo('tiny', 'anna')).rejects.toMatchObject({ code: 'CONFLICT' });
    await review.undo('tiny', 'chen');
    expect(await stored(text)).toMatchObject({ reason: 'ADJUDICATION', state: 'OPEN', labels: null });
    expect(await example(text)).toBeUndefined();
    await review.undo('tiny', 'ben');
    expect(await stored(text)).toMatchObject({ reason: 'SECOND_ANSWER', state: 'LABELLED', labels: ['positive'] });
    expect(await example(text)).toMatchObject({ labels: ['positive'], answeredBy: 'anna' });
    await review.undo('tiny', 'anna');
    expect(await stored(text)).toMatchObject({ reason: null, state: 'OPEN', labels: null, answeredBy: null });
    expect(await example(text)).toBeUndefined();
    await expect(review.undo('tiny', 'anna')).rejects.toMatchObject({ code: 'CONFLICT' });
    const history = await service.get(DataSource).query(`SELECT undone_at FROM answer`);
    expect(history).toHaveLength(3);
    expect(history.every((row: { undone_at: Date | null }) => row.undone_at !== null)).toBe(true);
  });
});

describe('an answer to what was revoked', () => {
  const revoke = (labeler: string) => service.get(RevocationService).revoke('tiny', { labeler }, 'eve');
  const trained = async () =>
    (await service.get(ExamplesRepository).listSplit('tiny', 'train')).map(({ text }) => text);

  beforeEach(async () => {
    await service.get(TaskService).apply(taskFile({ learning: { agreement: { share: 1 } } }), 'test');
    await admit(texts(60));
  });

  it('that confirms the label is the second labeler’s, and takes part again until it is taken back', async () => {
    const [question] = (await queue('anna')).filter(({ audit }) => !audit);
    const { id, text } = question!;
    await review.label(id, ['positive'], 'anna');
    await revoke('anna');
    expect(await trained()).toEqual([]);
    await review.label(id, ['positive'], 'ben');
    expect(await example(text)).toMatchObject({ labels: ['positive'], answeredBy: 'ben', revokedAt: null });
    expect(await revoke('anna')).toMatchObject({ examples: 0 });
    expect(await trained()).toEqual([text]);
    await review.undo('tiny', 'ben');
    expect(await example(text)).toMatchObject({ answeredBy: 'anna', revokedAt: expect.any(Date) });
    expect(await trained()).toEqual([]);
  });

  it('that differs leaves it revoked where it is taken back', async () => {
    const [question] = (await queue('anna')).filter(({ audit }) => !audit);
    const { id, text } = question!;
    await review.label(id, ['positive'], 'anna');
    await revoke('anna');
    await review.label(id, ['negative'], 'ben');
    expect(await example(text)).toBeUndefined();
    await review.undo('tiny', 'ben');
    expect(await example(text)).toMatchObject({
      labels: ['positive'],
      answeredBy: 'anna',
      revokedAt: expect.any(Date),
    });
  });

  it('that hid the label brings it back revoked, where its source was meanwhile', async () => {
    const [first, second] = (await queue('anna')).filter(({ audit }) => !audit);
    // Withdrawn by a disagreement, and in another's place.
    await review.label(first!.id, ['positive'], 'anna', 'ENTROPY');
    await review.label(first!.id, ['negative'], 'ben');
    await service.get(ExampleService).import('tiny', [{ text: second!.text, labels: ['negative'] }], 'file');
    await review.label(second!.id, ['positive'], 'chen');
    expect(await revoke('anna')).toMatchObject({ examples: 0 });
    expect(await revoke('file')).toMatchObject({ examples: 0 });
    await review.undo('tiny', 'ben');
    await review.undo('tiny', 'chen');
    for (const [text, answeredBy] of [
      [first!.text, 'anna'],
      [second!.text, 'file'],
    ] as const) {
      expect(await example(text)).toMatchObject({ answeredBy, revokedAt: expect.any(Date) });
    }
    expect(await trained()).toEqual([]);
  });

  const hourAgo = new Date(Date.now() - 3_600_000);
  it.each([
    ['by strategy and time', { strategy: 'ENTROPY', since: hourAgo }, true],
    ['by origin', { origin: 'ANSWER' }, true],
    ['of another labeler', { labeler: 'ben' }, false],
    ['of another origin', { labeler: 'anna', origin: 'AUDIT' }, false],
    ['of another strategy', { labeler: 'anna', strategy: 'BALD' }, false],
    ['until a time before', { labeler: 'anna', until: hourAgo }, false],
    ['since a time after', { labeler: 'anna', since: new Date(Date.now() + 3_600_000) }, false],
  ] as const)('that hid the label: a revocation %s', async (_, source, isRevoked) => {
    const [question] = (await queue('anna')).filter(({ audit }) => !audit);
    const { id, text } = question!;
    await review.label(id, ['positive'], 'anna', 'ENTROPY');
    await review.label(id, ['negative'], 'ben');
    await service.get(RevocationService).revoke('tiny', source, 'eve');
    await review.undo('tiny', 'ben');
    expect(await example(text)).toMatchObject({ answeredBy: 'anna' });
    expect(await trained()).toEqual(isRevoked ? [] : [text]);
  });

  it('that hid the label brings it back as it was where the revocation was taken back, or was of an earlier label', async () => {
    const [first, second] = (await queue('anna')).filter(({ audit }) => !audit);
    await review.label(second!.id, ['positive'], 'anna');
    await revoke('anna');
    await review.undo('tiny', 'anna');
    await review.label(second!.id, ['positive'], 'anna');
    await review.label(second!.id, ['negative'], 'ben');
    await review.undo('tiny', 'ben');
    expect(await trained()).toEqual([second!.text]);
    await review.label(first!.id, ['positive'], 'anna');
    await revoke('anna');
    await review.label(first!.id, ['negative'], 'ben');
    await service.get(RevocationService).revoke('tiny', { labeler: 'anna', restore: true }, 'eve');
    await review.undo('tiny', 'ben');
    expect((await trained()).toSorted()).toEqual([first!.text, second!.text].toSorted());
  });

  it('that is being taken back is waited for by a revocation', async () => {
    const [question] = (await queue('anna')).filter(({ audit }) => !audit);
    await review.label(question!.id, ['positive'], 'anna');
    const { revoking } = await service.get(Transactions).run(async (tx) => {
      await service.get(ExamplesRepository).lockTask('tiny', tx);
      let isDone = false;
      const done = revoke('anna').finally(() => (isDone = true));
      await sleep(300);
      expect(isDone).toBe(false);
      return { revoking: done };
    });
    expect(await revoking).toMatchObject({ examples: 1 });
  });

  it.each([
    ['of another', 'file'],
    ['of the labeler’s own', 'anna'],
  ])('that is taken back leaves the same label to a file %s that has given it since', async (_, importer) => {
    const [question] = (await queue('anna')).filter(({ audit }) => !audit);
    const { id, text } = question!;
    await review.label(id, ['positive'], 'anna', 'ENTROPY');
    await revoke('anna');
    const file = [{ text, labels: ['positive'] }];
    expect(await service.get(ExampleService).import('tiny', file, importer)).toMatchObject({ updated: 1 });
    await review.undo('tiny', 'anna');
    expect(await example(text)).toMatchObject({ labels: ['positive'], answeredBy: importer, revokedAt: null });
    expect(await trained()).toEqual([text]);
  });

  it('that is revoked itself is no way back to the label before', async () => {
    const [question] = (await queue('anna')).filter(({ audit }) => !audit);
    await service.get(ExampleService).import('tiny', [{ text: question!.text, labels: ['negative'] }], 'file');
    await review.label(question!.id, ['positive'], 'anna');
    await revoke('anna');
    await review.undo('tiny', 'anna');
    expect(await example(question!.text)).toMatchObject({ labels: ['negative'], revokedAt: expect.any(Date) });
  });
});

describe('undo', () => {
  it('takes a skip back, and is asked of who undid it, with the old reason in the history', async () => {
    await admit(texts(30));
    const [question] = await queue();
    await review.skip(question!.id, 'unclear', 'anna');
    await review.undo('tiny', 'anna');
    expect(await stored(question!.text)).toMatchObject({ state: 'OPEN', skipReason: null, leasedBy: 'anna' });
    const [kept] = await service.get(DataSource).query(`SELECT skip_reason, answered_by FROM answer`);
    expect(kept).toEqual({ skip_reason: 'unclear', answered_by: 'anna' });
  });

  it('leaves what a file has said since', async () => {
    await admit(texts(30));
    const [question] = await queue();
    await review.label(question!.id, ['positive'], 'anna');
    const known = (await example(question!.text))!;
    await service.get(DataSource).query(`UPDATE example SET labels = '{negative}' WHERE id = $1`, [known.id]);
    await review.undo('tiny', 'anna');
    expect((await example(question!.text))?.labels).toEqual(['negative']);
  });

  it('finds nothing of a text that was forgotten', async () => {
    await admit(texts(30));
    const [question] = await queue();
    await review.label(question!.id, ['positive'], 'anna');
    await service.get(ForgetService).forget('tiny', { text: question!.text }, 'test');
    expect(await service.get(DataSource).query(`SELECT 1 FROM answer`)).toEqual([]);
    await expect(review.undo('tiny', 'anna')).rejects.toMatchObject({ code: 'CONFLICT' });
  });
});

describe('labels in doubt', () => {
  /** As a run's trainer writes it. */
  async function doubt(rows: { text: string; label: string; doubt: number }[]): Promise<number> {
    const folder = join(dataDir, 'run');
    mkdirSync(folder, { recursive: true });
    const lines = rows.map(({ text, ...row }) =>
      JSON.stringify({ itemKey: itemKey({ text }), ...row, likelier: ['x'], distribution: [0.3, 0.7] }),
    );
    writeFileSync(join(folder, 'label-issues.jsonl'), lines.map((line) => `${line}\n`).join(''));
    return service.get(LabelIssues).ask('tiny', 1, folder);
  }

  it('are asked first, the most doubtful before others, with the label that they have', async () => {
    await admit(texts(30));
    const [question] = await queue();
    await review.label(question!.id, ['positive'], 'anna');
    const imported = { text: '从文件来的一条', labels: ['positive'], split: 'train' as const };
    await service.get(ExampleService).import('tiny', [imported], 'file');
    const rows = [
      { text: imported.text, label: 'positive', doubt: 0.9 },
      { text: question!.text, label: 'positive', doubt: 0.6 },
      { text: '不再有的一条', label: 'positive', doubt: 0.8 },
    ];
    expect(await doubt(rows)).toBe(2);
    expect(await doubt(rows)).toBe(2);
    const [first, second, third] = await queue();
    expect(first).toMatchObject({ text: imported.text, reason: 'LABEL_ISSUE', priority: 0.9, labels: ['positive'] });
    expect(first!.prediction).toMatchObject({ label: 'negative', confidence: 0.7 });
    expect(second).toMatchObject({ id: question!.id, reason: 'LABEL_ISSUE' });
    expect(third!.reason).toBeNull();

    // Corrected: what came from a file stays its, and the ledger says what was changed.
    await review.label(first!.id, ['negative'], 'ben');
    expect(await example(imported.text)).toMatchObject({ labels: ['negative'], origin: 'IMPORT', answeredBy: 'ben' });
    const [entry] = await service.get(LedgerService).listOfTask('tiny', 1);
    expect(entry).toMatchObject({
      kind: 'label-corrected',
      body: { split: 'train', from: ['positive'], to: ['negative'], by: 'ben' },
    });
    // Confirmed: it is not asked again, nor is one that has another label since.
    await review.label(second!.id, ['positive'], 'ben');
    expect(await doubt(rows)).toBe(0);
    expect((await queue()).every(({ reason }) => reason === null)).toBe(true);
    // Taken back, the doubt is there again.
    await review.undo('tiny', 'ben');
    expect((await queue('ben'))[0]).toMatchObject({ id: second!.id, reason: 'LABEL_ISSUE' });
  });

  it('corrected in the audit slice, they are trained on, and live accuracy keeps the answer given at random', async () => {
    await service.get(TasksRepository).setActive('tiny', 1);
    await admit(texts(60));
    const drawn = (await queue()).filter(({ audit, split }) => audit && split === 'train').slice(0, 3);
    expect(drawn).toHaveLength(3);
    // Of each the other label than the one that was served.
    const other = ({ predictedLabel }: Question) => (predictedLabel === 'positive' ? 'negative' : 'positive');
    for (const one of drawn) await review.label(one.id, [other(one)], 'anna');
    const live = () => service.get(AuditService).liveAccuracy('tiny');
    expect(await live()).toMatchObject({ rows: 3, right: 0 });

    const [first, second] = drawn;
    expect(await doubt([first!, second!].map((one) => ({ text: one.text, label: other(one), doubt: 0.9 })))).toBe(2);
    await review.label(first!.id, [first!.predictedLabel!], 'ben');
    const file = { text: second!.text, labels: [second!.predictedLabel!] };
    expect(await service.get(ExampleService).import('tiny', [file], 'file')).toMatchObject({ updated: 1 });
    for (const one of [first!, second!]) {
      expect(await example(one.text)).toMatchObject({ labels: [one.predictedLabel], origin: 'AUDIT', split: 'train' });
    }
    expect(await live()).toMatchObject({ rows: 3, right: 0 });
    // Its own answer taken back, and given anew, is another answer.
    await review.undo('tiny', 'anna');
    await review.label(drawn[2]!.id, [drawn[2]!.predictedLabel!], 'anna');
    expect(await live()).toMatchObject({ rows: 3, right: 1 });
  });

  it('skipped, they stay as they are', async () => {
    await admit(texts(30));
    const [question] = await queue();
    await review.label(question!.id, ['positive'], 'anna');
    const rows = [{ text: question!.text, label: 'positive', doubt: 0.6 }];
    await doubt(rows);
    await review.skip(question!.id, 'cannot tell', 'ben');
    expect(await stored(question!.text)).toMatchObject({ state: 'LABELLED', reason: null, labels: ['positive'] });
    expect((await example(question!.text))?.labels).toEqual(['positive']);
    expect(await doubt(rows)).toBe(0);
  });
});
