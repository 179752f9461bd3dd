/** The pool's bounds and what may leave it for training: no dev or test group, whatever its texts look like. */
import type { INestApplicationContext } from '@nestjs/common';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { AnswerTap } from '../../src/inference/answer-tap.js';
import type { Prediction } from '../../src/inference/types.js';
import { ExampleService } from '../../src/learning/examples.js';
import { Config } from '../../src/config/config.js';
import { FORGOTTEN_CHANNEL, RunErasure } from '../../src/learning/run-erasure.js';
import { ErasuresRepository } from '../../src/storage/erasures.repository.js';
import { Notifications } from '../../src/storage/notifications.js';
import { ForgetService } from '../../src/learning/forget.js';
import { IngestService } from '../../src/learning/ingest.js';
import { LedgerService } from '../../src/learning/ledger.js';
import { LEADERS_A_BAND } from '../../src/learning/near-duplicates.js';
import { PoolService, RESERVOIR_SIZE, type ScoredItem } from '../../src/learning/pool.js';
import { ReviewService } from '../../src/learning/review.js';
import { TaskService } from '../../src/learning/task-service.js';
import { ZeroShotVersions } from '../../src/learning/zero-shot-versions.js';
import { CandidatesRepository } from '../../src/storage/candidates.repository.js';
import { ExamplesRepository } from '../../src/storage/examples.repository.js';
import { StreamItemsRepository } from '../../src/storage/stream-items.repository.js';
import { Transactions } from '../../src/storage/transactions.js';
import { TrainingTextsRepository } from '../../src/storage/training-texts.repository.js';
import { fraction, itemKey, splitGroup, splitOf } from '../../src/task/keys.js';
import type { TaskDefinition } from '../../src/task/types.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile, texts } from '../fixtures/intake.js';
import { keyed } from '../fixtures/keyed.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let service: INestApplicationContext;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = mkdtempSync(join(tmpdir(), 'fewloop-pool-'));
  service = await startIntake({ url: database.url, dataDir, role: 'api' });
  await service.get(TaskService).apply(taskFile({ pool: { capacity: 3000, auditRate: 0.02 } }), 'test');
});
afterEach(async () => {
  await service.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

function prediction(confidence: number, version = 1): Prediction {
  return {
    label: 'positive',
    labels: ['positive'],
    confidence,
    calibrated: true,
    margin: 2 * confidence - 1,
    entropy: 1 - confidence,
    disagreement: { voters: 2, dissenting: 0, unanimous: true, voteEntropy: 0, jensenShannon: 0 },
    distribution: [
      { label: 'positive', probability: confidence },
      { label: 'negative', probability: 1 - confidence },
    ],
    members: [],
    route: confidence < 0.85 ? 'REVIEW' : 'ACCEPT',
    modelVersion: version,
    taskRevision: 1,
  };
}

function scoredItem(text: string, confidence: number, version = 1): ScoredItem {
  return { item: keyed(text), prediction: prediction(confidence, version) };
}

async function admit(items: ScoredItem[]): Promise<void> {
  const definition = (await service.get(TaskService).get('tiny')).definition as TaskDefinition;
  for (let at = 0; at < items.length; at += 500) {
    await service.get(PoolService).admit(definition, items.slice(at, at + 500));
  }
}

/** Who waits for a lock of the kind that one writer of a task's rows holds. */
const WAITING = `SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

const rows = <T>(sql: string): Promise<T[]> => service.get(DataSource).query<T[]>(sql);

describe('admission', () => {
  it('holds the bound, the audit slice and the reservoir, and is the same the second time', async () => {
    const items = texts(8000).map((text, i) => scoredItem(text, i % 3 === 0 ? 0.6 : 0.99));
    await admit(items);
    const groups = new Set(items.map(({ item }) => item.splitGroup));
    const summary = `SELECT count(*)::int AS total, (count(*) FILTER (WHERE audit))::int AS audit,
      count(reservoir_rank)::int AS reservoir, md5(string_agg(item_key, '' ORDER BY item_key)) AS keys FROM candidate`;
    const [first] = await rows<{ total: number; audit: number; reservoir: number; keys: string }>(summary);
    expect(first).toMatchObject({ total: 3000, reservoir: RESERVOIR_SIZE });
    const drawn = [...groups].filter((group) => fraction('audit', 'tiny', group) < 0.02);
    expect(first!.audit).toBe(drawn.length);
    const inReservoir = await rows<{ split_group: string }>(
      'SELECT split_group FROM candidate WHERE reservoir_rank IS NOT NULL',
    );
    const smallest = [...groups]
      .filter((group) => splitOf(group) === 'train')
      .sort((a, b) => fraction('reservoir', 'tiny', a) - fraction('reservoir', 'tiny', b))
      .slice(0, RESERVOIR_SIZE);
    expect(new Set(inReservoir.map((row) => row.split_group))).toEqual(new Set(smallest));
    await admit(items.slice(-500));
    expect((await rows<{ total: number; reservoir: number }>(summary))[0]).toMatchObject({
      total: 3000,
      reservoir: 2000,
    });
  });

  it('takes the newer prediction, and an older one where its version is active', async () => {
    await activate(3);
    await admit([scoredItem('好', 0.6, 2)]);
    await admit([scoredItem('好', 0.7, 1)]);
    expect(await rows('SELECT confidence, model_version FROM candidate')).toEqual([
      { confidence: 0.6, model_version: 2 },
    ]);
    await admit([scoredItem('好', 0.8, 3)]);
    expect(await rows('SELECT confidence, model_version FROM candidate')).toEqual([
      { confidence: 0.8, model_version: 3 },
    ]);
    await activate(2);
    await admit([scoredItem('好', 0.7, 2)]);
    expect(await rows('SELECT confidence, model_version FROM candidate')).toEqual([
      { confidence: 0.7, model_version: 2 },
    ]);
  });
});

describe('texts of one template', () => {
  const order = (i: number) =>
    `您有新的外卖订单，编号${(i * 7919 + 10_007).toString().padStart(10, '5')}，预计${1000 + ((i * 37) % 9000)}送达，请保持电话畅通，祝您用餐愉快，欢迎下次光临`;

  it('have a bounded number of leaders a band, and are compared part by part', async () => {
    const upsert = vi.spyOn(CandidatesRepository.prototype, 'upsert');
    await admit(Array.from({ length: 1500 }, (_, i) => scoredItem(order(i), 0.6)));
    const [most] = await rows<{ leaders: number; bands: number }>(
      `SELECT max(leaders)::int AS leaders, count(*)::int AS bands FROM (
         SELECT count(*) AS leaders FROM candidate, unnest(bands) AS band GROUP BY band) AS led`,
    );
    expect(most!.leaders).toBe(LEADERS_A_BAND);
    const characters = upsert.mock.calls.map(([, part]) => part.reduce((sum, { text }) => sum + text.length, 0));
    expect(characters.length).toBeGreaterThan(3);
    expect(Math.max(...characters)).toBeLessThanOrEqual(20_000);
    upsert.mockRestore();
  });

  it('are bounded in a pool that an earlier release has filled, too', async () => {
    await admit(Array.from({ length: 500 }, (_, i) => scoredItem(order(i), 0.6)));
    await rows('UPDATE candidate SET bands = ARRAY[7, 8]');
    const candidates = service.get(CandidatesRepository);
    const leaders = await service.get(Transactions).run((tx) => candidates.leaders('tiny', [7, 9], LEADERS_A_BAND, tx));
    expect(leaders).toHaveLength(LEADERS_A_BAND);
    expect(leaders[0]).toMatchObject({ bands: [7, 8], text: expect.stringContaining('外卖') });
  });
});

it('takes a label of any length, as a choice may have, and finds its questions by it', async () => {
  const label = Array.from({ length: 3000 }, (_, i) => String.fromCodePoint(0x4e00 + i)).join('');
  const text = texts(30).find((one) => splitOf(splitGroup(one)) === 'train' && !isAudit(one))!;
  const said = { ...prediction(0.6), label, labels: [label] };
  await admit([{ item: keyed(text), prediction: said }]);
  await activate(2);
  const again = async () => [{ ...said, modelVersion: 2 }];
  expect(await service.get(PoolService).refresh({ task: 'tiny', version: 2 }, 2, again)).toBe(true);
  await rows(`UPDATE task SET definition = definition || '{"kind": "multiple-choice"}'`);
  const found = async (filter: { label: string }) =>
    (await service.get(ReviewService).queue('tiny', { strategy: 'BREAKING_TIES', filter })).edges.map(
      ({ node }) => (node.prediction as Prediction).label,
    );
  expect(await found({ label })).toEqual([label]);
  expect(await found({ label: label.slice(1) })).toEqual([]);
});

const isAudit = (text: string) => fraction('audit', 'tiny', splitGroup(text)) < 0.02;
const activate = (version: number) => rows(`UPDATE task SET active_version = ${version}`);

describe('refreshing', () => {
  it('scores anew what an older version scored, the most uncertain first', async () => {
    await activate(2);
    await admit([scoredItem('甲', 0.8), scoredItem('乙', 0.55), scoredItem('丙', 0.7), scoredItem('丁', 0.6, 2)]);
    const seen: string[] = [];
    const refresh = () =>
      service.get(PoolService).refresh({ task: 'tiny', version: 2 }, 2, async (items) => {
        seen.push(...items.map(({ text }) => text));
        return items.map(({ text }) => (text === '乙' ? new Error('not for now') : prediction(0.9, 2)));
      });
    const outdated = async () => (await service.get(CandidatesRepository).counts('tiny', 2)).outdated;
    expect(await outdated()).toBe(3);
    expect(await refresh()).toBe(true);
    expect(seen).toEqual(['乙', '丙']);
    expect(await outdated()).toBe(1);
    expect(await refresh()).toBe(true);
    expect(await refresh()).toBe(false);
    expect(seen).toEqual(['乙', '丙', '甲']);
    expect(await rows('SELECT text, confidence FROM candidate ORDER BY confidence, text')).toEqual([
      { text: '乙', confidence: 0.55 },
      { text: '丁', confidence: 0.6 },
      { text: '丙', confidence: 0.9 },
      { text: '甲', confidence: 0.9 },
    ]);
  });

  it('scores anew after a rollback too, by replicas that have followed it', async () => {
    await admit([scoredItem('甲', 0.8, 2), scoredItem('乙', 0.55, 1)]);
    await activate(1);
    expect((await service.get(PoolService).stats('tiny')).outdated).toBe(1);
    const refresh = (version: number) =>
      service
        .get(PoolService)
        .refresh({ task: 'tiny', version }, 2, async (items) => items.map(() => prediction(0.9, version)));
    expect(await refresh(2)).toBe(false);
    expect(await refresh(1)).toBe(true);
    expect(await refresh(1)).toBe(false);
    expect((await service.get(PoolService).stats('tiny')).outdated).toBe(0);
    expect(await rows('SELECT text, confidence, model_version FROM candidate ORDER BY confidence')).toEqual([
      { text: '乙', confidence: 0.55, model_version: 1 },
      { text: '甲', confidence: 0.9, model_version: 1 },
    ]);
  });
});

describe('leakage', () => {
  it('gives no text of a dev or test group to training, priors or a strategy', async () => {
    await admit(texts(2000).map((text) => scoredItem(text, 0.6)));
    const training = service.get(TrainingTextsRepository);
    // Planted: a text whose hash says train, held out by an import that writes it otherwise.
    const train = (await training.unlabelledForTraining('tiny', 10))[0]!;
    const held = { text: ` ${train.text.replace('，', ',')}`, labels: ['positive'], split: 'test' as const };
    expect(await service.get(ExampleService).import('tiny', [held], 'test')).toMatchObject({ added: 1 });
    expect(splitGroup(held.text)).toBe(train.splitGroup);
    const forTraining = await training.unlabelledForTraining('tiny', 5000);
    const reservoir = await training.reservoir('tiny', 5000);
    expect(forTraining.length).toBeGreaterThan(1000);
    for (const row of [...forTraining, ...reservoir]) {
      expect(splitOf(row.splitGroup)).toBe('train');
      expect(row.splitGroup).not.toBe(train.splitGroup);
    }
    const asked = await service.get(ReviewService).queue('tiny', { first: 200, strategy: 'LEAST_CONFIDENCE' });
    for (const { node } of asked.edges) {
      if (node.audit) continue;
      expect(splitOf(node.splitGroup)).toBe('train');
      expect(node.splitGroup).not.toBe(train.splitGroup);
    }
  });

  it('a text that is streamed after it was held out stays held out', async () => {
    const text = texts(100).find((one) => splitOf(splitGroup(one)) === 'train')!;
    await service.get(ExampleService).import('tiny', [{ text, labels: ['negative'], split: 'dev' }], 'test');
    await admit([scoredItem(`${text} `, 0.6)]);
    expect(await rows('SELECT split, reservoir_rank FROM candidate')).toEqual([{ split: 'dev', reservoir_rank: null }]);
    expect(await service.get(TrainingTextsRepository).unlabelledForTraining('tiny', 10)).toEqual([]);
  });
});

describe('import', () => {
  it('adds, updates, leaves alone, and says what it refuses', async () => {
    const examples = service.get(ExampleService);
    const good = { text: '好', labels: ['positive'] };
    const result = await examples.import(
      'tiny',
      [
        good,
        { text: '差', labels: ['negative'], split: 'train' },
        { ...good },
        { text: '好', labels: ['negative'] },
        { text: '中', labels: ['neutral'] },
        { text: '中', labels: [] },
        { text: '中', labels: ['positive', 'negative'] },
        { text: '很'.repeat(20_001), labels: ['positive'] },
        { text: '\ud800', labels: ['positive'] },
        { text: ' ', labels: ['positive'] },
        { text: ' 差', labels: ['negative'], split: 'test' },
        { text: '中', labels: 'positive' as never },
        { text: '中', labels: ['positive'], split: 'TEST' as never },
      ],
      'test',
    );
    expect(result).toMatchObject({ added: 2, updated: 0, unchanged: 1 });
    expect(result.rejected.map(({ index }) => index)).toEqual([3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    expect(result.rejected.every(({ code }) => code === 'BAD_INPUT')).toBe(true);
    expect(await examples.import('tiny', [good], 'test')).toMatchObject({ added: 0, unchanged: 1 });
    const corrected = await examples.import('tiny', [{ ...good, labels: ['negative'] }], 'test');
    expect(corrected).toMatchObject({ updated: 1 });
    expect(await examples.stats('tiny')).toMatchObject({ byLabel: { negative: 2 } });
  });
});

describe('tasks', () => {
  it('a renamed label takes its examples with it; one with examples is not taken away', async () => {
    const tasks = service.get(TaskService);
    const examples = service.get(ExampleService);
    await examples.import('tiny', [{ text: '好', labels: ['positive'] }], 'test');
    const labels = [
      { name: 'good', words: ['好'], was: ['positive'] },
      { name: 'negative', words: ['差'] },
    ];
    const renamed = await tasks.apply(taskFile({ labels }), 'test');
    expect(renamed).toMatchObject({ revision: 2, activeVersion: 2 });
    expect((await examples.stats('tiny')).byLabel).toEqual({ good: 1 });
    expect(await tasks.apply(taskFile({ labels }), 'test')).toMatchObject({ revision: 2, activeVersion: 2 });
    const lost = taskFile({ labels: [{ name: 'other', words: ['很'] }, labels[1]] });
    await expect(tasks.apply(lost, 'test')).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'labels' });
    expect(await tasks.apply(lost, 'test', { retire: true })).toMatchObject({ revision: 3 });
    // What is gone is asked about no more; what is there still is.
    await examples.import('tiny', [{ text: '差', labels: ['negative'] }], 'test');
    const other = { name: 'third', words: ['你'] };
    const later = (...kept: object[]) => taskFile({ labels: [{ name: 'other', words: ['很'] }, ...kept] });
    expect(await tasks.apply(later(labels[1]!, other), 'test')).toMatchObject({ revision: 4 });
    await expect(tasks.apply(later(other), 'test')).rejects.toThrow('negative would be gone');
    await expect(tasks.apply(taskFile({ templats: [] }), 'test')).rejects.toThrow('did you mean "templates"');
  });

  it('an example under a former name is not lost with the name', async () => {
    const tasks = service.get(TaskService);
    const labels = (was: string[]) => [
      { name: 'good', words: ['好'], was },
      { name: 'negative', words: ['差'] },
    ];
    await tasks.apply(taskFile({ labels: labels(['positive']) }), 'test');
    await service.get(ExampleService).import('tiny', [{ text: '好', labels: ['good'] }], 'test');
    // As an earlier release stored what it had checked before the file was applied.
    await rows(`UPDATE example SET labels = '{positive}'`);
    await expect(tasks.apply(taskFile({ labels: labels([]) }), 'test')).rejects.toThrow('positive would be gone');
    await tasks.apply(taskFile({ labels: labels(['positive']), maxLength: 31 }), 'test');
    expect((await service.get(ExampleService).stats('tiny')).byLabel).toEqual({ good: 1 });
    expect(await tasks.apply(taskFile({ labels: labels([]) }), 'test')).toMatchObject({ revision: 4 });
  });

  it('an import that is under way when a label is renamed stores its new name', async () => {
    const labels = [
      { name: 'good', words: ['好'], was: ['positive'] },
      { name: 'negative', words: ['差'] },
    ];
    const waiting = async () => (await rows(WAITING)).length;
    let isApplied = false;
    const { under } = await service.get(Transactions).run(async (tx) => {
      await service.get(ExamplesRepository).lockTask('tiny', tx);
      const importing = service.get(ExampleService).import('tiny', [{ text: '好', labels: ['positive'] }], 'test');
      await expect.poll(waiting).toBe(1);
      const applying = service.get(TaskService).apply(taskFile({ labels }), 'test');
      const applied = applying.finally(() => (isApplied = true));
      await expect.poll(async () => isApplied || (await waiting()) === 2, { timeout: 30_000 }).toBe(true);
      return { under: Promise.all([importing, applied]) };
    });
    expect((await under)[0]).toMatchObject({ added: 1 });
    expect((await service.get(ExampleService).stats('tiny')).byLabel).toEqual({ good: 1 });
  });
});

describe('skewed priors', () => {
  it('are told as they were measured, first for an empty text, then on the texts that have come', async () => {
    const tasks = service.get(TaskService);
    const labels = [
      { name: 'positive', words: ['好'] },
      { name: 'negative', words: ['你'] },
    ];
    const warning = (template: number, on: string) => ({
      severity: 'warning',
      field: `templates.${template}`,
      message: expect.stringMatching(new RegExp(`^gives "negative" [\\de.-]+ % ${on}`)),
    });
    const skewed = await tasks.apply(taskFile({ labels }), 'test');
    expect(await tasks.findings(skewed)).toEqual([0, 1].map((i) => warning(i, 'for an empty text')));
    await admit(texts(400).map((text) => scoredItem(text, 0.6)));
    await service.get(ZeroShotVersions).rematch('tiny');
    const rematched = await tasks.get('tiny');
    expect(rematched.activeVersion).toBe(skewed.activeVersion! + 1);
    // Within the texts' own words the first template does say the label.
    expect(await tasks.findings(rematched)).toEqual([warning(1, 'on average over \\d{3} texts')]);
    // A fair pair of words, and the warning is gone.
    expect(await tasks.findings(await tasks.apply(taskFile(), 'test'))).toEqual([]);
  });
});

describe('priors of a revision that asks for more than the texts so far have', () => {
  afterEach(() => vi.useRealTimers());

  it('are matched again once enough texts have it, and not over and over before', async () => {
    const tasks = service.get(TaskService);
    const zeroShot = service.get(ZeroShotVersions);
    const active = async () => (await tasks.get('tiny')).activeVersion;
    await admit(texts(400).map((text) => scoredItem(text, 0.6)));
    const templates = ['很{mask}。{title}：{text}', '{text}总之很{mask}。'];
    expect(await tasks.apply(taskFile({ templates }), 'test')).toMatchObject({ activeVersion: 2 });
    vi.useFakeTimers({ toFake: ['performance'] });
    const read = vi.spyOn(service.get(TrainingTextsRepository), 'reservoir');
    for (let second = 0; second < 60; second++) {
      await zeroShot.rematch('tiny');
      vi.advanceTimersByTime(1000);
    }
    // Nor are they read over and over.
    expect(read).toHaveBeenCalledOnce();
    await zeroShot.follow('tiny', 'test');
    expect(await active()).toBe(2);

    const titled = texts(400, '新商品').map((text): ScoredItem => {
      const item = { text, fields: { title: '标题' } };
      const keys = { itemKey: itemKey(item), splitGroup: splitGroup(text) };
      return { item: { ...keys, textPair: null, choices: null, ...item }, prediction: prediction(0.6) };
    });
    await admit(titled);
    await zeroShot.rematch('tiny');
    expect(await active()).toBe(3);
    const report = JSON.parse(readFileSync(join(dataDir, 'bundles', 'tiny', '3', 'report.json'), 'utf8')) as object;
    const train = titled.filter(({ item }) => splitOf(item.splitGroup) === 'train');
    expect(report).toMatchObject({ priorFrom: 'texts', texts: train.length });
    await zeroShot.follow('tiny', 'test');
    expect(await active()).toBe(3);
  });
});

describe('forgetting', () => {
  it('need not look into bundles: none holds a text of a user', async () => {
    await admit(texts(400, '秘密商品').map((text) => scoredItem(text, 0.6)));
    await service.get(ZeroShotVersions).rematch('tiny');
    expect(await service.get(TaskService).get('tiny')).toMatchObject({ activeVersion: 2 });
    const folder = join(dataDir, 'bundles', 'tiny', '2');
    const report = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')) as object;
    expect(report).toMatchObject({ priorFrom: 'texts' });
    const files = readdirSync(folder);
    expect(files).toEqual(expect.arrayContaining(['golden.json', 'manifest.json', 'report.json']));
    for (const file of files) expect(readFileSync(join(folder, file), 'utf8')).not.toContain('秘密');
  });

  it('leaves a digest in the ledger and nothing else', async () => {
    const text = '这是 秘密';
    await admit([scoredItem(text, 0.6), scoredItem('别的', 0.6)]);
    await service.get(IngestService).ingest('tiny', [
      { id: 'a', text: '这是  秘密' },
      { id: 'b', text: '别的' },
    ]);
    await service.get(ExampleService).import('tiny', [{ text, labels: ['positive'] }], 'test');
    const run = join(dataDir, 'runs', 'tiny', 'some-run');
    mkdirSync(run, { recursive: true });
    const lines = [text, '别的'].map((one) => `${JSON.stringify({ text: one, splitGroup: splitGroup(one) })}\n`);
    writeFileSync(join(run, 'labelled.jsonl'), lines.join(''));
    const forgotten = await service.get(ForgetService).forget('tiny', { id: 'a' }, 'test');
    const counts = { streamItems: 1, candidates: 1, examples: 1, runRows: 1 };
    expect(forgotten).toEqual({ digest: splitGroup(text), ...counts, pendingFolders: 0 });
    expect(readFileSync(join(run, 'labelled.jsonl'), 'utf8')).toBe(lines[1]);
    const tables = await rows<{ name: string }>(
      `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
       WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`,
    );
    for (const { name } of tables) {
      expect([name, await rows(`SELECT t FROM ${name} AS t WHERE t::text LIKE '%秘密%'`)]).toEqual([name, []]);
    }
    expect(await service.get(StreamItemsRepository).countPending('tiny')).toBe(1);
    expect((await service.get(CandidatesRepository).counts('tiny', null)).total).toBe(1);
    const [entry] = await service.get(LedgerService).listOfTask('tiny', 1);
    expect(JSON.stringify(entry)).not.toContain('秘密');
    expect(entry).toMatchObject({ kind: 'forgotten', body: { digest: splitGroup(text), by: 'test' } });
    await expect(service.get(ForgetService).forget('tiny', {}, 'test')).rejects.toMatchObject({ code: 'BAD_INPUT' });
  });

  it('is repeated by what the ledger keeps, where a backup brought the text back', async () => {
    const text = '这是 秘密';
    const forget = (digest: string) => service.get(ForgetService).forget('tiny', { digest }, 'test');
    await admit([scoredItem(text, 0.6)]);
    await service.get(ForgetService).forget('tiny', { text }, 'test');
    await admit([scoredItem(text, 0.6), scoredItem('别的', 0.6)]);
    const [entry] = await service.get(LedgerService).listOfTask('tiny', 1);
    const { digest } = entry!.body as { digest: string };
    expect(await forget(digest)).toMatchObject({ digest: splitGroup(text), candidates: 1 });
    expect((await service.get(CandidatesRepository).counts('tiny', null)).total).toBe(1);
    await expect(forget(text)).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'digest' });
  });

  it('reaches every text of an id, which Kafka gives again, and passes over what could not be read', async () => {
    const named = ['一二三四', '五六七八', '九十百千'];
    await admit([...named, '别的'].map((text) => scoredItem(text, 0.6)));
    await service.get(IngestService).ingest('tiny', [{ id: 'a', text: named[0]! }]);
    const groups = [...named.slice(1), '别的'].map(splitGroup);
    await service.get(DataSource).query(
      `INSERT INTO stream_record (cluster_id, topic_id, topic, partition, "offset", recorded_at, task, external_id,
         split_group, state, scored_at)
       VALUES ('c', 't', 't', 0, 0, now(), 'tiny', 'a', $1, 'SCORED', now() - interval '3 s'),
         ('c', 't', 't', 0, 1, now(), 'tiny', 'a', $2, 'SCORED', now() - interval '2 s'),
         ('c', 't', 't', 0, 2, now(), 'tiny', 'a', $1, 'SCORED', now() - interval '1 s'),
         ('c', 't', 't', 0, 3, now(), 'tiny', 'a', NULL, 'FAILED', now()),
         ('c', 't', 't', 0, 4, now(), 'tiny', 'b', $3, 'SCORED', now())`,
      groups,
    );
    const forgotten = await service.get(ForgetService).forget('tiny', { id: 'a' }, 'test');
    expect(forgotten).toMatchObject({ digest: splitGroup(named[0]!), streamItems: 4, candidates: 3 });
    expect(await rows('SELECT text FROM candidate')).toEqual([{ text: '别的' }]);
    const entries = await service.get(LedgerService).listOfTask('tiny', 3);
    const digests = entries.map(({ body }) => (body as { digest: string }).digest);
    expect(digests.toSorted()).toEqual(named.map(splitGroup).toSorted());
    const again = service.get(ForgetService).forget('tiny', { id: 'a' }, 'test');
    await expect(again).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'id' });
  });

  it('reaches what is held of answers in every process, and brings no disagreement back', async () => {
    const asked = (text: string) =>
      splitOf(splitGroup(text)) === 'train' && fraction('audit', 'tiny', splitGroup(text)) > 0.1;
    const [secret, other] = texts(30, '秘密').filter(asked);
    const tap = service.get(AnswerTap);
    tap.open('tiny', { from: 1, watched: 2 });
    const offer = (text: string) =>
      tap.offer('tiny', 1, new Map([[text, { text }]]), [{ ok: true, itemKey: text } as { ok: boolean }]);
    offer(secret!);
    const told: string[] = [];
    service.get(ForgetService).forgotten$.subscribe((task) => told.push(task));
    await service.get(ForgetService).forget('tiny', { text: secret! }, 'test');
    expect(tap.waiting('tiny')).toBe(0);
    expect(told).toContain('tiny');
    // Another process's word; the own one may come meanwhile.
    offer(secret!);
    await service.get(Notifications).notify(FORGOTTEN_CHANNEL, 'tiny');
    await expect.poll(() => tap.waiting('tiny')).toBe(0);

    // Taken to be asked about before it was forgotten.
    const disagreements = [secret!, other!].map((text) => {
      const { item } = scoredItem(text, 0.6);
      return { item: { text }, itemKey: item.itemKey, prediction: prediction(0.6, 1), challenger: prediction(0.9, 2) };
    });
    expect(await service.get(PoolService).ask('tiny', disagreements, 10)).toBe(1);
    expect(await rows('SELECT text FROM candidate')).toEqual([{ text: other }]);
  });

  it('reaches the runs that a trainer keeps on a volume of its own, at its start and while it runs', async () => {
    const volume = join(dataDir, 'volume-of-the-trainer');
    const config = service.get(Config).with({ dataDir: volume, role: 'trainer' });
    const trainer = new RunErasure(config, service.get(ErasuresRepository), service.get(Notifications));
    const file = join(volume, 'runs', 'tiny', 'some-run', 'unlabelled.jsonl');
    mkdirSync(join(file, '..'), { recursive: true });
    const line = (text: string) => `${JSON.stringify({ text, splitGroup: splitGroup(text) })}\n`;
    writeFileSync(file, ['一', '二', '三'].map(line).join(''));
    const forget = (text: string) => service.get(ForgetService).forget('tiny', { text }, 'test');
    await trainer.catchUp();
    expect(await service.get(ForgetService).pending()).toBe(0);

    expect(await forget('一')).toMatchObject({ runRows: 0, pendingFolders: 1 });
    expect(readFileSync(file, 'utf8')).toContain('一');
    trainer.onApplicationBootstrap();
    try {
      await expect.poll(() => readFileSync(file, 'utf8')).toBe(['二', '三'].map(line).join(''));
      await expect.poll(() => service.get(ForgetService).pending()).toBe(0);
      await forget('二');
      await expect.poll(() => readFileSync(file, 'utf8')).toBe(line('三'));
      await expect.poll(() => service.get(ForgetService).pending()).toBe(0);
      // What was forgotten before it came is no reason to erase it again.
      writeFileSync(file, ['二', '三'].map(line).join(''));
      await trainer.catchUp();
      expect(readFileSync(file, 'utf8')).toContain('二');
    } finally {
      await trainer.beforeApplicationShutdown();
    }
  });
});
