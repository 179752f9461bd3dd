/** Training runs from request to promotion, through crashes of either side, on a real database. */
import type { INestApplicationContext } from '@nestjs/common';
import { cpSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LearningEvents } from '../../src/learning/events.js';
import { PromotionService } from '../../src/learning/promotion.js';
import { RunData } from '../../src/learning/run-data.js';
import { QuestionQueue } from '../../src/learning/question-queue.js';
import { RunService } from '../../src/learning/runs.js';
import { TriggerService } from '../../src/learning/triggers.js';
import { CandidatesRepository } from '../../src/storage/candidates.repository.js';
import type { SplitValue } from '../../src/storage/entities/item-columns.js';
import type { TrainingRunRow } from '../../src/storage/entities/training-run.js';
import { RunsRepository } from '../../src/storage/runs.repository.js';
import { Transactions } from '../../src/storage/transactions.js';
import { VersionsRepository } from '../../src/storage/versions.repository.js';
import { createDatabase } from '../fixtures/database.js';
import { addExamples, applyTinyTask, event, makeDataDir, startService, takeEvents } from '../fixtures/learning.js';
import { isAlive } from '../fixtures/processes.js';
import { keyed } from '../fixtures/keyed.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let services: INestApplicationContext[];

beforeEach(async () => {
  database = await createDatabase();
  dataDir = makeDataDir();
  services = [];
});
afterEach(async () => {
  await Promise.all(services.map((service) => service.close()));
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

async function start(mode: string, role: 'all' | 'api' = 'all'): Promise<INestApplicationContext> {
  const service = await startService({ url: database.url, dataDir, mode, role });
  services.push(service);
  return service;
}

async function startWithTask(mode: string, changes: Record<string, unknown> = {}): Promise<INestApplicationContext> {
  return withTask(await start(mode), changes);
}

async function withTask(
  service: INestApplicationContext,
  changes: Record<string, unknown> = {},
): Promise<INestApplicationContext> {
  await applyTinyTask(service, dataDir, changes);
  await addExamples(service, [
    { text: '很好', label: 'positive', split: 'train' },
    { text: '太差了', label: 'negative', split: 'train' },
    { text: '还行', label: 'positive', split: 'dev' },
    { text: '退货', label: 'negative', split: 'test' },
  ]);
  return service;
}

async function settled(service: INestApplicationContext, id: string): Promise<TrainingRunRow> {
  return reached(service, id, ['SUCCEEDED', 'FAILED', 'CANCELLED']);
}

async function reached(service: INestApplicationContext, id: string, states: string[]): Promise<TrainingRunRow> {
  for (;;) {
    const run = await service.get(RunService).get(id);
    if (states.includes(run.state)) return run;
    await sleep(50);
  }
}

function score(key: string) {
  const figures = { confidence: 0.6, margin: 0.2, entropy: 0.5, voteEntropy: 0, jensenShannon: 0, dissenting: 0 };
  return { itemKey: key, prediction: {}, modelVersion: 1, route: 'REVIEW' as const, ...figures };
}

const folderOf = (id: string) => join(dataDir, 'runs', 'tiny', id);
const attemptsOf = (id: string) => Number(readFileSync(join(folderOf(id), 'attempts'), 'utf8'));

async function trainerPid(id: string): Promise<number> {
  const file = join(folderOf(id), 'trainer.pid');
  while (!existsSync(join(folderOf(id), 'progress.jsonl')) || !existsSync(file)) await sleep(20);
  return Number(readFileSync(file, 'utf8'));
}

describe('a run', () => {
  it('makes a version and asks for its promotion, with progress on the way', async () => {
    const service = await startWithTask('succeed');
    const seen: TrainingRunRow[] = [];
    service.get(LearningEvents).runChanged$.subscribe((run) => seen.push(run));
    const { id } = await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    const run = await settled(service, id);
    expect(run).toMatchObject({ state: 'SUCCEEDED', progress: 1, producedVersion: 2, startedBy: 'ann', error: null });
    expect(run.estimateSeconds).toBe(93);
    expect(run.dataDigest).toMatch(/^[0-9a-f]{64}$/);
    expect(new Set(seen.map(({ state }) => state))).toEqual(new Set(['QUEUED', 'RUNNING', 'SUCCEEDED']));

    const version = await service.get(VersionsRepository).find('tiny', 2);
    expect(version).toMatchObject({ state: 'CANDIDATE', runId: id });
    const [promotion] = await service.get(PromotionService).list('tiny');
    expect(promotion).toMatchObject({ version: 2, championVersion: 1, verdict: 'INCONCLUSIVE', decision: null });
    expect(promotion?.report).toMatchObject({
      rows: 2,
      heldOut: { test: 1, dev: 1 },
      counts: { onlyChampionRight: 0 },
      // The zero-shot champion trained on nothing: both train rows count, and the fake trainer has them right.
      outOfFold: { figures: { folds: 2 }, comparison: { rows: 2, challengerAccuracy: 1 } },
    });
    const comparison = { version: 2, championVersion: 1, verdict: 'INCONCLUSIVE' };
    expect(await takeEvents(service)).toEqual([
      event('promotion.requested', { promotion: promotion?.id, ...comparison }),
      event('run.finished', { run: id, state: 'SUCCEEDED', trigger: 'MANUAL', version: 2, error: null }),
    ]);
  });

  it('has what its models doubt asked, with the label that the row has', async () => {
    const service = await startWithTask('doubt');
    const { id } = await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    expect(await settled(service, id)).toMatchObject({ state: 'SUCCEEDED', producedVersion: 2 });
    const { edges } = await service.get(QuestionQueue).page('tiny', {}, 'ben');
    expect(edges.map(({ node }) => node)).toMatchObject([
      {
        text: '很好',
        reason: 'LABEL_ISSUE',
        priority: 0.9,
        labels: ['positive'],
        split: 'train',
        audit: false,
        prediction: { label: 'negative', confidence: 0.9, modelVersion: 2 },
      },
    ]);
  });

  it('writes train and dev rows for the trainer, never test rows', async () => {
    const service = await startWithTask('succeed');
    const { id } = await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    await settled(service, id);
    const files = ['labelled.jsonl', 'unlabelled.jsonl'].map((name) => readFileSync(join(folderOf(id), name), 'utf8'));
    expect(files.join('')).not.toContain('退货');
    const rows = files[0]!
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(rows.map(({ text, split }) => [text, split])).toEqual(
      expect.arrayContaining([
        ['很好', 'train'],
        ['还行', 'dev'],
      ]),
    );
    const settings = JSON.parse(readFileSync(join(folderOf(id), 'run.json'), 'utf8')) as Record<string, unknown>;
    expect(settings).toMatchObject({ formatVersion: 1, runId: id, task: 'tiny', version: 2, prior: null });
  });

  it('sees no text of a dev or test group, wherever one was planted', async () => {
    const service = await startWithTask('succeed');
    const plant = (mark: string, split: SplitValue, reservoirRank: number | null = null) => ({
      ...keyed(`${mark}，真的`),
      ...score(keyed(`${mark}，真的`).itemKey),
      nearGroup: mark,
      bands: null,
      predictedLabel: null,
      split,
      audit: false,
      reservoirRank,
    });
    await service.get(Transactions).run(async (tx) => {
      await service
        .get(CandidatesRepository)
        .upsert(
          'tiny',
          [
            plant('可以用', 'train'),
            plant('储备', 'train', 0.3),
            plant('标记甲', 'dev'),
            plant('标记乙', 'test', 0.1),
            plant('标记丙', 'train', 0.2),
          ],
          tx,
        );
    });
    // In the pool as a train text, and imported as a test example under another spelling.
    await addExamples(service, [
      { text: '标记丙,真的', label: 'positive', split: 'test' },
      { text: '标记丁', label: 'negative', split: 'test', origin: 'AUDIT' },
    ]);
    const { id } = await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    await settled(service, id);
    const files = ['run.json', 'labelled.jsonl', 'unlabelled.jsonl'];
    const [settings, labelled, unlabelled] = files.map((name) => readFileSync(join(folderOf(id), name), 'utf8'));
    expect(settings! + labelled! + unlabelled!).not.toContain('标记');
    const texts = unlabelled!
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { text: string }).text);
    expect(texts).toEqual(['储备，真的', '可以用，真的']);
  });

  it('is one a task, whoever asks', async () => {
    const service = await startWithTask('slow');
    const runs = service.get(RunService);
    const asked = await Promise.allSettled([1, 2, 3].map(() => runs.start('tiny', 'MANUAL', 'ann')));
    expect(asked.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    const refused = asked.find((one) => one.status === 'rejected');
    expect(refused).toMatchObject({ reason: { code: 'RUN_IN_PROGRESS' } });
  });

  it('is refused for an unknown task and where nothing is labelled', async () => {
    const service = await start('succeed');
    const runs = service.get(RunService);
    await expect(runs.start('nobody', 'MANUAL', 'ann')).rejects.toMatchObject({ code: 'TASK_NOT_FOUND' });
    await applyTinyTask(service, dataDir);
    await expect(runs.start('tiny', 'MANUAL', 'ann')).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'task' });
    await expect(runs.get('no-uuid')).rejects.toMatchObject({ code: 'RUN_NOT_FOUND' });
  });

  it('stops when cancelled', async () => {
    const service = await startWithTask('slow');
    const runs = service.get(RunService);
    const { id } = await runs.start('tiny', 'MANUAL', 'ann');
    const pid = await trainerPid(id);
    await runs.cancel(id);
    expect(await settled(service, id)).toMatchObject({ state: 'CANCELLED' });
    const told = { run: id, state: 'CANCELLED', trigger: 'MANUAL', version: null, error: null };
    expect(await takeEvents(service)).toEqual([event('run.finished', told)]);
    expect(isAlive(pid)).toBe(false);
    await expect(runs.cancel(id)).rejects.toMatchObject({ code: 'CONFLICT' });
    await runs.start('tiny', 'MANUAL', 'ann');
  });

  it('fails with the reason that the trainer gives', async () => {
    const service = await startWithTask('refuse');
    const { id } = await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    const run = await settled(service, id);
    const error = 'TOO_FEW_ROWS: label negative has no row';
    expect(run).toMatchObject({ state: 'FAILED', error });
    const told = { run: id, state: 'FAILED', trigger: 'MANUAL', version: null, error };
    expect(await takeEvents(service)).toEqual([event('run.finished', told)]);
    expect(attemptsOf(id)).toBe(1);
  });

  it('starts a trainer that died again, twice at most', async () => {
    const service = await startWithTask('dieAlways');
    const { id } = await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    const run = await settled(service, id);
    expect(run).toMatchObject({ state: 'FAILED', error: expect.stringContaining('SIGKILL') });
    expect(attemptsOf(id)).toBe(3);
  });

  it('succeeds although its trainer was killed once', async () => {
    const service = await startWithTask('dieOnce');
    const { id } = await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    expect(await settled(service, id)).toMatchObject({ state: 'SUCCEEDED', producedVersion: 2 });
    expect(attemptsOf(id)).toBe(2);
  });

  it('waits for a bundle store that is away, and its bundle is there before its version', async () => {
    const bundleStore = join(dataDir, 'store');
    const service = await startService({ url: database.url, dataDir, mode: 'succeed', bundleStore });
    services.push(service);
    await withTask(service);
    renameSync(bundleStore, `${bundleStore}.away`);
    writeFileSync(bundleStore, 'no folder');
    const run = await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    await vi.waitFor(
      async () => {
        const { state, stage } = (await service.get(RunsRepository).find(run.id))!;
        expect({ state, stage }).toEqual({ state: 'RUNNING', stage: 'waiting for the bundle store' });
      },
      { timeout: 20_000 },
    );
    expect(await service.get(VersionsRepository).find('tiny', 2)).toBeNull();
    rmSync(bundleStore);
    renameSync(`${bundleStore}.away`, bundleStore);
    expect(await settled(service, run.id)).toMatchObject({ state: 'SUCCEEDED', producedVersion: 2 });
    const { digest } = (await service.get(VersionsRepository).find('tiny', 2))!;
    expect(existsSync(join(bundleStore, 'tiny', digest, 'manifest.json'))).toBe(true);
  });

  it('takes the next number where its own was given to another version meanwhile', async () => {
    const service = await startWithTask('slowOnce');
    const { id } = await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    const pid = await trainerPid(id);
    const versions = service.get(VersionsRepository);
    const { createdAt: _created, ...first } = (await versions.find('tiny', 1))!;
    await versions.insert({ ...first, version: 2, digest: 'another', state: 'CANDIDATE' });
    process.kill(pid, 'SIGKILL');
    expect(await settled(service, id)).toMatchObject({ state: 'SUCCEEDED', producedVersion: 3 });
    expect(await versions.find('tiny', 3)).toMatchObject({ runId: id });
  });
});

describe('a service that ends', () => {
  it('hands its run to the next one, which goes on in the same folder', async () => {
    const first = await startWithTask('slowOnce');
    const { id } = await first.get(RunService).start('tiny', 'MANUAL', 'ann');
    const pid = await trainerPid(id);
    const settings = readFileSync(join(folderOf(id), 'run.json'), 'utf8');
    await first.close();
    services.pop();
    expect(isAlive(pid)).toBe(false);
    const second = await start('slowOnce');
    expect(await settled(second, id)).toMatchObject({ state: 'SUCCEEDED', producedVersion: 2 });
    expect(attemptsOf(id)).toBe(2);
    expect(readFileSync(join(folderOf(id), 'run.json'), 'utf8')).toBe(settings);
    expect(await second.get(PromotionService).list('tiny')).toHaveLength(1);
  });

  it('by SIGKILL is noticed: the job is taken over, and a trained bundle is not trained again', async () => {
    const api = await start('slow', 'api');
    await applyTinyTask(api, dataDir);
    await addExamples(api, [{ text: '很好', label: 'positive', split: 'train' }]);
    const { id } = await api.get(RunService).start('tiny', 'MANUAL', 'ann');
    // What a service leaves that was killed between its trainer's end and the version: the job is its own.
    const dataSource = api.get(DataSource);
    await dataSource.query(
      `UPDATE pgboss.job SET state = 'active', started_on = now(), heartbeat_on = now() - interval '1 minute'
       WHERE id = $1`,
      [id],
    );
    await api.get(RunsRepository).updateOpen(id, { state: 'RUNNING', startedAt: new Date(0) });
    const run = await api.get(RunService).get(id);
    await api.get(RunData).prepare(run, folderOf(id));
    cpSync(join(dataDir, 'template'), join(folderOf(id), 'bundle'), { recursive: true });
    const manifest = join(folderOf(id), 'bundle', 'manifest.json');
    writeFileSync(manifest, JSON.stringify({ ...JSON.parse(readFileSync(manifest, 'utf8')), version: 2 }));
    writeFileSync(join(folderOf(id), 'result.json'), JSON.stringify({ ok: true, version: 2, bundle: 'bundle' }));

    const worker = await start('refuse');
    const after = await settled(worker, id);
    expect(after).toMatchObject({ state: 'SUCCEEDED', producedVersion: 2, startedAt: new Date(0) });
    expect(existsSync(join(folderOf(id), 'attempts'))).toBe(false);
  });

  it('leaves to another what it started without a worker of its own', async () => {
    const api = await start('succeed', 'api');
    await applyTinyTask(api, dataDir);
    await addExamples(api, [{ text: '很好', label: 'positive', split: 'train' }]);
    const { id } = await api.get(RunService).start('tiny', 'MANUAL', 'ann');
    const worker = await start('succeed');
    expect(await settled(worker, id)).toMatchObject({ state: 'SUCCEEDED' });
  });
});

describe('triggers', () => {
  it('start a run when enough labels are new, and not again before as many more are', async () => {
    const trigger = { newLabels: 3, cooldownMinutes: 0 };
    const service = await startWithTask('succeed', { learning: { trigger } });
    const triggers = service.get(TriggerService);
    const runs = service.get(RunService);
    await triggers.checkLabels('tiny');
    const [run] = await runs.list('tiny');
    expect(run).toMatchObject({ trigger: 'NEW_LABELS', reason: '4 labels since the last run, 3 asked for' });
    await settled(service, run!.id);
    await triggers.checkLabels('tiny');
    expect(await runs.list('tiny')).toHaveLength(1);
    await addExamples(
      service,
      ['一', '二', '三'].map((text) => ({ text, label: 'positive', split: 'train' as const })),
    );
    await triggers.checkLabels('tiny');
    expect(await runs.list('tiny')).toHaveLength(2);
  });

  it('keep to the cool-down', async () => {
    const service = await startWithTask('refuse', { learning: { trigger: { newLabels: 1, cooldownMinutes: 60 } } });
    const triggers = service.get(TriggerService);
    await triggers.checkLabels('tiny');
    const [run] = await service.get(RunService).list('tiny');
    await settled(service, run!.id);
    await addExamples(service, [{ text: '新', label: 'positive', split: 'train' }]);
    await triggers.checkLabels('tiny');
    expect(await service.get(RunService).list('tiny')).toHaveLength(1);
  });
});
