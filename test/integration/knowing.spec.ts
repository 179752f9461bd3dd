/** What a task knows of itself: live accuracy of what was served, sources revoked, runs repeated, versions that agree. */
import type { INestApplicationContext } from '@nestjs/common';
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { AuditService } from '../../src/learning/audit.js';
import { ExampleService } from '../../src/learning/examples.js';
import { LedgerService } from '../../src/learning/ledger.js';
import { PoolService } from '../../src/learning/pool.js';
import { PromotionService } from '../../src/learning/promotion.js';
import { ReproductionService } from '../../src/learning/reproduction.js';
import { RevocationService } from '../../src/learning/revocation.js';
import { RunData } from '../../src/learning/run-data.js';
import { RunService } from '../../src/learning/runs.js';
import { VersionAgreement } from '../../src/learning/version-agreement.js';
import type { CandidateRow } from '../../src/storage/entities/candidate.js';
import type { TrainingRunRow } from '../../src/storage/entities/training-run.js';
import { ExamplesRepository } from '../../src/storage/examples.repository.js';
import { RunsRepository } from '../../src/storage/runs.repository.js';
import { TasksRepository } from '../../src/storage/tasks.repository.js';
import { Transactions } from '../../src/storage/transactions.js';
import { VersionAgreementsRepository } from '../../src/storage/version-agreements.repository.js';
import { itemKey, splitGroup } from '../../src/task/keys.js';
import { createDatabase } from '../fixtures/database.js';
import { addExamples, admitAnswered, applyTinyTask, makeDataDir, said, startService } from '../fixtures/learning.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let service: INestApplicationContext;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = makeDataDir();
  service = await startService({ url: database.url, dataDir, mode: 'succeed' });
});
afterEach(async () => {
  await service.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

const admit = (texts: string[], label: string, modelVersion = 1) => admitAnswered(service, texts, label, modelVersion);
const numbered = (count: number, prefix: string) => Array.from({ length: count }, (_, i) => `${prefix}${i}`);
const candidates = () => service.get(DataSource).manager.find<CandidateRow>('candidate', {});

async function settled(id: string): Promise<TrainingRunRow> {
  for (;;) {
    const run = await service.get(RunService).get(id);
    if (['SUCCEEDED', 'FAILED', 'CANCELLED'].includes(run.state)) return run;
    await sleep(50);
  }
}

describe('live accuracy', () => {
  beforeEach(async () => {
    await applyTinyTask(service, dataDir, { pool: { auditRate: 1 } });
  });

  it('is of what was served, whatever was scored since, and of audit answers alone', async () => {
    const texts = numbered(10, '文');
    await admit(texts, 'positive');
    // Scored anew, which is no answer that anybody was given.
    await service.get(TasksRepository).setActive('tiny', 2);
    await service.get(PoolService).refresh({ task: 'tiny', version: 2 }, 100, (items) => {
      return Promise.resolve(items.map(() => said('negative', 2)));
    });
    expect((await candidates()).map(({ prediction }) => (prediction as { label: string }).label)).toContain('negative');
    await service.get(TasksRepository).setActive('tiny', 1);
    const rows = texts.map((text, i) => ({ text, label: i < 7 ? 'positive' : 'negative', split: 'train' as const }));
    await addExamples(
      service,
      rows.map((row) => ({ ...row, origin: 'AUDIT' as const })),
    );
    await admit(['导入'], 'negative');
    await addExamples(service, [{ text: '导入', label: 'positive', split: 'train' }]);
    await admit(['等着'], 'negative');
    const report = await service.get(AuditService).liveAccuracy('tiny');
    expect(report).toMatchObject({
      version: 1,
      rows: 10,
      right: 7,
      accuracy: 0.7,
      byLabel: [],
      calibrationError: null,
    });
    expect(report!.low).toBeCloseTo(0.3968, 4);
    expect(report!.high).toBeCloseTo(0.8922, 4);
  });

  it('is of the active version, by texts that it served itself', async () => {
    await admit(['一', '二'], 'positive');
    await admit(['二'], 'negative', 2);
    await addExamples(
      service,
      ['一', '二'].map((text) => ({ text, label: 'positive', split: 'train' as const, origin: 'AUDIT' as const })),
    );
    expect(await service.get(AuditService).liveAccuracy('tiny')).toMatchObject({ rows: 1, right: 1 });
    await service.get(TasksRepository).setActive('tiny', 2);
    expect(await service.get(AuditService).liveAccuracy('tiny')).toMatchObject({ version: 2, rows: 1, right: 0 });
  });

  it('keeps nothing of texts that are not of the audit slice', async () => {
    await service.get(DataSource).query(`UPDATE task SET definition = jsonb_set(definition, '{pool,auditRate}', '0')`);
    await admit(numbered(30, '文'), 'positive');
    const kept = await candidates();
    expect(kept.length).toBeGreaterThan(0);
    expect(kept.filter(({ servedPrediction }) => servedPrediction !== null)).toEqual([]);
  });
});

describe('a text that is forgotten while a run reads', () => {
  it('is not in the data that the run writes afterwards, nor when it resumes', async () => {
    await applyTinyTask(service, dataDir);
    await addExamples(service, [
      { text: '很好', label: 'positive', split: 'train' },
      { text: '太差了', label: 'negative', split: 'train' },
      { text: '秘密', label: 'negative', split: 'train' },
    ]);
    const forget = (text: string) =>
      service.get(Transactions).run(async (tx) => {
        await service.get(ExamplesRepository).deleteGroup('tiny', splitGroup(text), tx);
        await service.get(LedgerService).append(tx, 'tiny', 'forgotten', { digest: splitGroup(text), by: 'ann' });
      });
    const examples = service.get(ExamplesRepository);
    const read = vi.spyOn(examples, 'list').mockImplementationOnce(async (task) => {
      const rows = await ExamplesRepository.prototype.list.call(examples, task);
      await forget('秘密');
      return rows;
    });
    const started = { task: 'tiny', trigger: 'MANUAL' as const, reason: null, startedBy: 'ann' };
    const run = (await service.get(RunsRepository).insertOpen(started))!;
    const folder = join(dataDir, 'runs', 'tiny', run.id);
    const written = () => readFileSync(join(folder, 'labelled.jsonl'), 'utf8');
    const digest = await service.get(RunData).prepare(run, folder);
    expect(read).toHaveBeenCalledOnce();
    expect(written()).toContain('很好');
    expect(written()).not.toContain('秘密');
    expect(await service.get(RunData).prepare(run, folder)).toBe(digest);
    // Nor does a later attempt keep what was forgotten between the two.
    await forget('太差了');
    expect(await service.get(RunData).prepare(run, folder)).not.toBe(digest);
    expect(written()).not.toContain('太差了');
    await service.get(RunsRepository).updateOpen(run.id, { state: 'CANCELLED' });
  });
});

describe('a revoked source', () => {
  beforeEach(async () => {
    await applyTinyTask(service, dataDir);
    await addExamples(service, [
      { text: '很好', label: 'positive', split: 'train' },
      { text: '太差了', label: 'negative', split: 'train' },
      { text: '退货', label: 'negative', split: 'test' },
      { text: '一般', label: 'negative', split: 'train', origin: 'ANSWER' },
    ]);
    await service.get(DataSource).query(`UPDATE example SET answered_by = 'bob' WHERE text IN ('一般', '退货')`);
  });

  const revoke = (request: Parameters<RevocationService['revoke']>[1]) =>
    service.get(RevocationService).revoke('tiny', request, 'ann');
  const trainedOn = (id: string) => readFileSync(join(dataDir, 'runs', 'tiny', id, 'labelled.jsonl'), 'utf8');

  it('is counted first, takes no part in later runs and gates, and comes back', async () => {
    expect(await revoke({ labeler: 'bob', dryRun: true })).toEqual({ examples: 2, already: 0, dryRun: true });
    expect(await revoke({ labeler: 'bob' })).toEqual({ examples: 2, already: 0, dryRun: false });
    expect(await revoke({ labeler: 'bob' })).toMatchObject({ examples: 0, already: 2 });
    const stats = await service.get(ExampleService).stats('tiny');
    expect(stats).toMatchObject({ train: 2, test: 0, revoked: 2, byLabel: { positive: 1, negative: 1 } });
    const first = await settled((await service.get(RunService).start('tiny', 'MANUAL', 'ann')).id);
    expect(trainedOn(first.id)).not.toContain('一般');
    const [promotion] = await service.get(PromotionService).list('tiny');
    expect(promotion?.report).toMatchObject({ rows: 0 });

    expect(await revoke({ labeler: 'bob', restore: true })).toMatchObject({ examples: 2 });
    const second = await settled((await service.get(RunService).start('tiny', 'MANUAL', 'ann')).id);
    expect(trainedOn(second.id)).toContain('一般');
    const [next] = await service.get(PromotionService).list('tiny');
    expect(next?.report).toMatchObject({ rows: 1 });
    const ledger = service.get(LedgerService);
    expect((await ledger.listOfTask('tiny', 5)).map(({ kind }) => kind)).toEqual(['restored', 'revoked', 'revoked']);
    expect(await ledger.verify()).toMatchObject({ brokenAt: null });
  });

  it('is named by origin and time too, and by something', async () => {
    expect(await revoke({ origin: 'ANSWER', dryRun: true })).toMatchObject({ examples: 1 });
    expect(await revoke({ origin: 'IMPORT', labeler: 'bob', dryRun: true })).toMatchObject({ examples: 1 });
    const hour = 3_600_000;
    expect(await revoke({ since: new Date(Date.now() - hour), dryRun: true })).toMatchObject({ examples: 4 });
    expect(await revoke({ until: new Date(Date.now() - hour), dryRun: true })).toMatchObject({ examples: 0 });
    for (const nobody of [{}, { labeler: 'half \ud83d of a pair' }]) {
      await expect(revoke(nobody)).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'labeler' });
    }
    const backwards = { since: new Date(), until: new Date(Date.now() - hour) };
    await expect(revoke(backwards)).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'until' });
  });

  it('named by its origin, the strategy that asked or the time takes no part in a later run', async () => {
    await addExamples(
      service,
      ['问来的', '那天的'].map((text) => ({ text, label: 'positive', split: 'train' as const })),
    );
    const sql = (query: string) => service.get(DataSource).query(query);
    await sql(`UPDATE example SET strategy = 'ENTROPY' WHERE text = '问来的'`);
    await sql(`UPDATE example SET updated_at = '2026-01-05T12:00:00Z' WHERE text = '那天的'`);
    const day = { since: new Date('2026-01-05T00:00:00Z'), until: new Date('2026-01-06T00:00:00Z') };
    for (const source of [{ origin: 'ANSWER' }, { strategy: 'ENTROPY' }, day] as const) {
      expect(await revoke(source)).toMatchObject({ examples: 1 });
    }
    const run = await settled((await service.get(RunService).start('tiny', 'MANUAL', 'ann')).id);
    const trained = trainedOn(run.id);
    for (const text of ['很好', '太差了']) expect(trained).toContain(text);
    for (const text of ['一般', '问来的', '那天的']) expect(trained).not.toContain(text);
  });

  it('ends where the text is labelled anew, by whoever does', async () => {
    await revoke({ labeler: 'bob' });
    const inputs = [{ text: '一般', labels: ['negative'] }];
    expect(await service.get(ExampleService).import('tiny', inputs, 'eve')).toMatchObject({ updated: 1, unchanged: 0 });
    const [row] = await service.get(ExamplesRepository).findByKeys('tiny', [itemKey({ text: '一般' })]);
    expect(row).toMatchObject({ revokedAt: null, answeredBy: 'eve' });
  });

  it('is who changed the label last, by a file too; where the label came from at first stays', async () => {
    const inputs = [{ text: '一般', labels: ['positive'] }];
    expect(await service.get(ExampleService).import('tiny', inputs, 'eve')).toMatchObject({ updated: 1 });
    expect(await revoke({ labeler: 'bob', dryRun: true })).toMatchObject({ examples: 1 });
    expect(await revoke({ labeler: 'eve', origin: 'ANSWER' })).toMatchObject({ examples: 1 });
    const run = await settled((await service.get(RunService).start('tiny', 'MANUAL', 'ann')).id);
    expect(trainedOn(run.id)).not.toContain('一般');
  });

  it('stays out of training with its whole group where that is held out', async () => {
    await revoke({ labeler: 'bob' });
    // The same text but for a space: of the same group.
    const inputs = [{ text: '退货 ', labels: ['negative'] }];
    await service.get(ExampleService).import('tiny', inputs, 'eve');
    const run = await settled((await service.get(RunService).start('tiny', 'MANUAL', 'ann')).id);
    expect(trainedOn(run.id)).not.toContain('退货');
  });
});

describe('a run', () => {
  beforeEach(async () => {
    await applyTinyTask(service, dataDir);
    await addExamples(service, [
      { text: '很好', label: 'positive', split: 'train' },
      { text: '太差了', label: 'negative', split: 'train' },
    ]);
  });

  const first = async () => settled((await service.get(RunService).start('tiny', 'MANUAL', 'ann')).id);
  const fileOf = (id: string, name: string) => readFileSync(join(dataDir, 'runs', 'tiny', id, name), 'utf8');

  it('is explained', async () => {
    const run = await first();
    const explanation = await service.get(ReproductionService).explain(run);
    expect(explanation).toMatchObject({
      reason: 'asked for by ann',
      dataDigest: run.dataDigest,
      settings: { runId: run.id, taskRevision: 1, seed: expect.any(Number), baseModel: { digest: expect.any(String) } },
      libraries: expect.any(Object),
      repeatable: 'yes',
    });
  });

  it('shows what the student learned beside human labels, and why; a forgotten text is gone from it', async () => {
    const reproductions = service.get(ReproductionService);
    const run = await first();
    expect(await reproductions.pseudoLabels(run, 10, 0)).toBeNull();
    const folder = join(dataDir, 'runs', 'tiny', run.id);
    const line = (key: string, label: string) => ({
      itemKey: key,
      label,
      confidence: 0.93,
      contested: true,
      strategy: 'fused',
      rule: 'contested, over threshold 3',
      round: 1,
      votes: { 'pet-0': label, 'pet-1': 'negative' },
      teachers: ['pet-0', 'pet-1'],
    });
    const lines = [line('k1', 'positive'), line('k2', 'negative'), line('gone', 'positive')];
    writeFileSync(join(folder, 'pseudo-labels.jsonl'), lines.map((each) => `${JSON.stringify(each)}\n`).join(''));
    const texts = ['k1', 'k2'].map((key) => ({ itemKey: key, splitGroup: `g${key}`, text: `文 ${key}` }));
    appendFileSync(join(folder, 'unlabelled.jsonl'), texts.map((each) => `${JSON.stringify(each)}\n`).join(''));
    expect(await reproductions.pseudoLabels(run, 2, 1)).toEqual({
      totalCount: 3,
      nodes: [
        {
          itemKey: 'k2',
          item: { text: '文 k2' },
          labels: ['negative'],
          confidence: 0.93,
          contested: true,
          strategy: 'fused',
          rule: 'contested, over threshold 3',
          round: 1,
          votes: [
            { teacher: 'pet-0', labels: ['negative'] },
            { teacher: 'pet-1', labels: ['negative'] },
          ],
        },
        expect.objectContaining({ itemKey: 'gone', item: null }),
      ],
    });
  });

  it('is repeated with the same data and seed, whatever was labelled since, and compared', async () => {
    const run = await first();
    await addExamples(service, [{ text: '后来的', label: 'positive', split: 'train' }]);
    const repeated = await settled((await service.get(RunService).reproduce(run.id, 'eve')).id);
    expect(repeated).toMatchObject({
      state: 'SUCCEEDED',
      reproduces: run.id,
      dataDigest: run.dataDigest,
      producedVersion: 3,
      reason: `repeats run ${run.id}, asked for by eve`,
      reproduction: { version: 2, sameGraphs: true, goldenDifference: 0, otherLibraries: [] },
    });
    expect(fileOf(repeated.id, 'labelled.jsonl')).toBe(fileOf(run.id, 'labelled.jsonl'));
    const [before, after] = [run, repeated].map(({ id }) => JSON.parse(fileOf(id, 'run.json')) as { seed: number });
    expect(after!.seed).toBe(before!.seed);
    expect(await service.get(PromotionService).list('tiny')).toHaveLength(1);
    // A repetition has learnt nothing of what was labelled since: it is new still.
    expect((await service.get(RunsRepository).lastOwn('tiny'))?.id).toBe(run.id);
  });

  it('of which a text is gone is not repeated, and says so', async () => {
    const run = await first();
    const file = join(dataDir, 'runs', 'tiny', run.id, 'labelled.jsonl');
    expect(existsSync(file)).toBe(true);
    appendFileSync(file, '\n');
    const again = service.get(RunService).reproduce(run.id, 'eve');
    await expect(again).rejects.toMatchObject({ code: 'CONFLICT', message: expect.stringContaining('forgotten') });
    rmSync(join(dataDir, 'runs', 'tiny', run.id), { recursive: true });
    await expect(service.get(RunService).reproduce(run.id, 'eve')).rejects.toMatchObject({ code: 'CONFLICT' });
  });

  it('is a point of the learning curve, with what its gate found', async () => {
    await addExamples(service, [
      { text: '还行', label: 'positive', split: 'dev' },
      { text: '退货', label: 'negative', split: 'test' },
    ]);
    await first();
    await service
      .get(DataSource)
      .query(`UPDATE model_version SET manifest = manifest || '{"trainingData": {"labelled": 2}}' WHERE version = 2`);
    const [point, ...others] = await service.get(VersionAgreementsRepository).curve('tiny', 5);
    expect(others).toEqual([]);
    const [promotion] = await service.get(PromotionService).list('tiny');
    const { challengerAccuracy } = promotion!.report as { challengerAccuracy: number };
    expect(point).toEqual({ version: 2, labels: 2, rows: 2, right: 2 * challengerAccuracy });
  });

  it('tells how far its version agrees with the one before, and what that says of further answers', async () => {
    const texts = numbered(60, '话');
    await admit(texts, 'positive');
    await first();
    expect(await service.get(VersionAgreementsRepository).list('tiny', 5)).toEqual([]);
    await first();
    const [agreement] = await service.get(VersionAgreementsRepository).list('tiny', 5);
    // The fake trainer makes the same bundle again.
    expect(agreement).toMatchObject({ version: 3, before: 2, kappa: 1 });
    expect(agreement!.texts).toBeGreaterThanOrEqual(30);
    expect(await service.get(VersionAgreement).stopping('tiny')).toMatchObject({ advice: 'UNKNOWN', agreement: null });
    await first();
    await first();
    expect(await service.get(VersionAgreement).stopping('tiny')).toMatchObject({ advice: 'STOP', agreement: 1 });
  });
});
