/** Promotions decided on a real database, with real model hosts behind the activation. */
import type { INestApplicationContext } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { appendFileSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FewloopError } from '../../src/common/errors.js';
import { METRICS } from '../../src/common/metrics/metrics.js';
import type { PrometheusMetrics } from '../../src/common/metrics/prometheus.js';
import { ServedWindows } from '../../src/inference/served-windows.js';
import { LearningEvents } from '../../src/learning/events.js';
import { GateService } from '../../src/learning/gate.js';
import type { GateVerdict } from '../../src/learning/gate-statistics.js';
import { GuardService } from '../../src/learning/guard.js';
import { LedgerService } from '../../src/learning/ledger.js';
import { RetentionService } from '../../src/learning/retention.js';
import { PromotionService } from '../../src/learning/promotion.js';
import { PromotionsResolver } from '../../src/api/promotions.resolver.js';
import { ActivationService } from '../../src/registry/activation.js';
import { Catalogue } from '../../src/registry/catalogue.js';
import { ModelRegistry } from '../../src/registry/versions.js';
import { ExamplesRepository } from '../../src/storage/examples.repository.js';
import { RunsRepository } from '../../src/storage/runs.repository.js';
import { TasksRepository } from '../../src/storage/tasks.repository.js';
import { Transactions } from '../../src/storage/transactions.js';
import { VersionsRepository } from '../../src/storage/versions.repository.js';
import { splitGroup } from '../../src/task/keys.js';
import type { TaskDefinition } from '../../src/task/types.js';
import { createDatabase } from '../fixtures/database.js';
import {
  addExamples,
  admitAnswered,
  applyTinyTask,
  event,
  makeDataDir,
  renameLabel,
  startService,
  takeEvents,
} from '../fixtures/learning.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let service: INestApplicationContext;
let promotions: PromotionService;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = makeDataDir();
  service = await startService({ url: database.url, dataDir, mode: 'succeed' });
  promotions = service.get(PromotionService);
});
afterEach(async () => {
  await service.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

/** A further version, the same bundle under its number. */
async function addVersion(version: number, runId: string | null = null): Promise<void> {
  const folder = join(dataDir, `made-${version}`);
  cpSync(join(dataDir, 'template'), folder, { recursive: true });
  const file = join(folder, 'manifest.json');
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  writeFileSync(file, JSON.stringify({ ...manifest, version }));
  await service.get(ModelRegistry).registerVersion({ task: 'tiny', version, folder, runId });
}

async function request(version: number, verdict: GateVerdict, championVersion = 1): Promise<string> {
  const comparison = { championVersion, verdict, report: { policy: 'ensemble', statement: `It is ${verdict}.` } };
  return (await promotions.request('tiny', version, comparison)).id;
}

async function active(): Promise<number | null | undefined> {
  return (await service.get(TasksRepository).find('tiny'))?.activeVersion;
}

async function ledgerKinds(): Promise<string[]> {
  const ledger = service.get(LedgerService);
  expect(await ledger.verify()).toMatchObject({ brokenAt: null });
  return (await ledger.listOfTask('tiny', 10)).map(({ kind }) => kind);
}

describe('approval', () => {
  it('makes the version active, here and for all, and is in the ledger', async () => {
    await applyTinyTask(service, dataDir);
    await addVersion(2);
    const activated: number[] = [];
    service.get(LearningEvents).modelActivated$.subscribe(({ version }) => activated.push(version));
    const id = await request(2, 'NOT_WORSE');
    const comparison = { version: 2, championVersion: 1, verdict: 'NOT_WORSE' };
    expect(await takeEvents(service)).toEqual([event('promotion.requested', { promotion: id, ...comparison })]);
    const approved = await promotions.approve(id, { by: 'ann', comment: 'fine' });
    expect(await takeEvents(service)).toEqual([event('model.activated', { version: 2, from: 1, by: 'ann' })]);
    expect(approved).toMatchObject({ decision: 'APPROVED', decidedBy: 'ann', comment: 'fine', override: false });
    expect(await active()).toBe(2);
    expect(service.get(ActivationService).served()).toMatchObject({ tiny: 2 });
    expect(activated).toEqual([2]);
    const versions = service.get(VersionsRepository);
    expect(await versions.find('tiny', 1)).toMatchObject({ state: 'RETIRED' });
    expect(await versions.find('tiny', 2)).toMatchObject({ state: 'ACTIVE', activatedAt: expect.any(Date) });
    expect(await ledgerKinds()).toEqual(['promotion-approved']);
    const [entry] = await service.get(LedgerService).listOfTask('tiny', 1);
    const digest = (await versions.find('tiny', 2))?.digest;
    expect(entry?.body).toMatchObject({ promotion: id, version: 2, champion: 1, verdict: 'NOT_WORSE', by: 'ann' });
    expect(entry?.body).toMatchObject({ digests: { version: digest } });
  });

  it('needs the verdict that the task asks for, or an override with a comment', async () => {
    await applyTinyTask(service, dataDir);
    await addVersion(2);
    const id = await request(2, 'INCONCLUSIVE');
    const refused = { code: 'GATE_NOT_PASSED', message: expect.stringContaining('It is INCONCLUSIVE.') };
    await expect(promotions.approve(id, { by: 'ann' })).rejects.toMatchObject(refused);
    await expect(promotions.approve(id, { by: 'ann', override: true, comment: ' ' })).rejects.toMatchObject({
      code: 'BAD_INPUT',
      field: 'comment',
    });
    expect(await active()).toBe(1);
    const approved = await promotions.approve(id, { by: 'ann', override: true, comment: 'few labels' });
    expect(approved).toMatchObject({ decision: 'APPROVED', override: true });
    expect(await active()).toBe(2);
  });

  it('is of the comparison with the active version: a stale one is compared again', async () => {
    await applyTinyTask(service, dataDir, {
      learning: { promotion: { minVerdict: 'worse' }, trigger: { newLabels: null } },
    });
    await addVersion(2);
    await addVersion(3);
    const second = await request(2, 'BETTER');
    await promotions.approve(second, { by: 'ann' });
    const third = await request(3, 'BETTER', 1);
    await expect(promotions.approve(third, { by: 'ann' })).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringMatching(/version 2 is active since .* compared with 1; compared again as promotion/),
    });
    const [again, stale] = await promotions.list('tiny');
    expect(stale).toMatchObject({ id: third, decision: 'SUPERSEDED' });
    expect(again).toMatchObject({ version: 3, championVersion: 2, verdict: 'INCONCLUSIVE', decision: null });
    await expect(promotions.approve(third, { by: 'ann' })).rejects.toMatchObject({
      code: 'CONFLICT',
      message: `the promotion is superseded already; open is ${again!.id}, of version 3`,
    });
    await promotions.approve(again!.id, { by: 'ann' });
    expect(await active()).toBe(3);
  });

  it('of a stale one leaves what was decided while it is compared again, and what was asked for', async () => {
    await applyTinyTask(service, dataDir);
    for (const version of [2, 3, 4]) await addVersion(version);
    await promotions.approve(await request(2, 'BETTER'), { by: 'ann' });
    const gate = service.get(GateService);
    const comparing = async (id: string, meanwhile: () => Promise<unknown>) => {
      vi.spyOn(gate, 'compare').mockImplementationOnce(async () => {
        await meanwhile();
        return { championVersion: 2, verdict: 'BETTER', report: {} };
      });
      return promotions.approve(id, { by: 'ann' }).catch(({ code, message }: FewloopError) => `${code}: ${message}`);
    };
    const third = await request(3, 'BETTER', 1);
    const rejected = await comparing(third, () => promotions.reject(third, { by: 'bob', comment: 'odd answers' }));
    expect(rejected).toBe('CONFLICT: the promotion is rejected already');
    expect(await service.get(VersionsRepository).find('tiny', 3)).toMatchObject({ state: 'REJECTED' });
    expect((await promotions.list('tiny'))[0]).toMatchObject({ id: third, decision: 'REJECTED' });

    const fourth = await request(4, 'BETTER', 1);
    let fifth = '';
    expect(await comparing(fourth, async () => (fifth = await request(5, 'BETTER', 2)))).toBe(
      `CONFLICT: the promotion is superseded already; open is ${fifth}, of version 5`,
    );
    expect((await promotions.list('tiny'))[0]).toMatchObject({ id: fifth, decision: null });
  });

  it('is of the policy that was compared: where the task has another one since, it is compared again', async () => {
    await applyTinyTask(service, dataDir, {
      learning: { promotion: { minVerdict: 'worse' }, trigger: { newLabels: null } },
    });
    await addVersion(2);
    const first = await request(2, 'BETTER');
    const tasks = service.get(TasksRepository);
    const change = async (policy: 'student' | 'cascade') => {
      const definition = structuredClone((await tasks.find('tiny'))!.definition) as TaskDefinition;
      definition.serving.policy = policy;
      await service.get(DataSource).query('UPDATE task SET definition = $1', [definition]);
    };
    await change('student');
    await expect(promotions.approve(first, { by: 'ann' })).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringMatching(/policy is student since .* compared by ensemble; compared again as promotion/),
    });
    expect(await active()).toBe(1);
    const [again, stale] = await promotions.list('tiny');
    expect(stale).toMatchObject({ id: first, decision: 'SUPERSEDED' });
    expect(again).toMatchObject({ championVersion: 1, verdict: 'INCONCLUSIVE', report: { policy: 'student' } });

    // At the same moment as the approval.
    const prepare = vi.spyOn(service.get(ActivationService), 'prepare').mockImplementationOnce(() => change('cascade'));
    await expect(promotions.approve(again!.id, { by: 'ann' })).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringMatching(/compared by student: look again/),
    });
    prepare.mockRestore();
    await change('student');
    await promotions.approve(again!.id, { by: 'ann' });
    expect(await active()).toBe(2);
  });

  it('of two at once is one', async () => {
    await applyTinyTask(service, dataDir);
    await addVersion(2);
    const id = await request(2, 'BETTER');
    const both = await Promise.allSettled([1, 2].map(() => promotions.approve(id, { by: 'ann' })));
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(both.find((one) => one.status === 'rejected')).toMatchObject({ reason: { code: 'CONFLICT' } });
    expect(await ledgerKinds()).toEqual(['promotion-approved']);
  });

  it('of a bundle that is spoilt changes nothing', async () => {
    await applyTinyTask(service, dataDir);
    await addVersion(2);
    const id = await request(2, 'BETTER');
    appendFileSync(join(dataDir, 'bundles', 'tiny', '2', 'golden.json'), ' ');
    await expect(promotions.approve(id, { by: 'ann' })).rejects.toMatchObject({ code: 'BUNDLE_INVALID' });
    expect(await active()).toBe(1);
    expect(await promotions.get(id)).toMatchObject({ decision: null });
    expect(await ledgerKinds()).toEqual([]);
  });

  it('is not for who started the run, where the task asks for four eyes', async () => {
    await applyTinyTask(service, dataDir, {
      learning: { promotion: { fourEyes: true }, trigger: { newLabels: null } },
    });
    const started = { task: 'tiny', trigger: 'MANUAL' as const, reason: null, startedBy: 'ann' };
    const run = await service.get(RunsRepository).insertOpen(started);
    await service.get(RunsRepository).updateOpen(run!.id, { state: 'SUCCEEDED' });
    await addVersion(2, run!.id);
    const id = await request(2, 'BETTER');
    await expect(promotions.approve(id, { by: 'ann' })).rejects.toMatchObject({ code: 'FORBIDDEN' });
    await promotions.approve(id, { by: 'bob' });
    expect(await active()).toBe(2);
  });
});

describe('of a run that a trigger started, where the task asks for four eyes', () => {
  let id: string;
  beforeEach(async () => {
    await applyTinyTask(service, dataDir, {
      learning: { promotion: { fourEyes: true }, trigger: { newLabels: null } },
    });
    const started = { task: 'tiny', trigger: 'DRIFT' as const, reason: 'drift', startedBy: null };
    const run = await service.get(RunsRepository).insertOpen(started);
    await service.get(RunsRepository).updateOpen(run!.id, { state: 'SUCCEEDED' });
    await addVersion(2, run!.id);
    id = await request(2, 'INCONCLUSIVE');
  });
  const approval = (by: string) => promotions.approve(id, { by, comment: `${by} has looked`, override: true });

  it('two people approve, each by the rules, and the first makes nothing active', async () => {
    await expect(promotions.approve(id, { by: 'ann' })).rejects.toMatchObject({ code: 'GATE_NOT_PASSED' });
    expect(await promotions.get(id)).toMatchObject({ firstApprovalBy: null });
    expect(await approval('ann')).toMatchObject({ decision: null, firstApprovalBy: 'ann' });
    expect(await active()).toBe(1);
    await expect(approval('ann')).rejects.toMatchObject({ code: 'FORBIDDEN' });
    await expect(promotions.approve(id, { by: 'bob' })).rejects.toMatchObject({ code: 'GATE_NOT_PASSED' });
    expect(await active()).toBe(1);
    expect(await approval('bob')).toMatchObject({ decision: 'APPROVED', decidedBy: 'bob', firstApprovalBy: 'ann' });
    expect(await active()).toBe(2);
    expect(await ledgerKinds()).toEqual(['promotion-approved', 'promotion-approved-first']);
    const [second, first] = await service.get(LedgerService).listOfTask('tiny', 2);
    expect(first!.body).toMatchObject({
      promotion: id,
      version: 2,
      by: 'ann',
      comment: 'ann has looked',
      override: true,
    });
    expect(second!.body).toMatchObject({ promotion: id, firstApprovalBy: 'ann', by: 'bob' });
  });

  it('of two who are the first at once one is, and either may reject', async () => {
    const both = await Promise.allSettled(['ann', 'ann'].map(approval));
    expect(both.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected']);
    expect(await active()).toBe(1);
    expect(await promotions.reject(id, { by: 'ann', comment: 'after all' })).toMatchObject({ decision: 'REJECTED' });
    await expect(approval('bob')).rejects.toMatchObject({ code: 'CONFLICT' });
  });
});

describe('requests', () => {
  it('of a newer version supersede older ones; of the same one there is one', async () => {
    await applyTinyTask(service, dataDir);
    const old = await request(2, 'BETTER');
    const recent = await request(3, 'BETTER');
    expect(await request(3, 'WORSE')).toBe(recent);
    expect(await promotions.get(old)).toMatchObject({ decision: 'SUPERSEDED' });
    await expect(promotions.approve(old, { by: 'ann' })).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(promotions.get('nothing')).rejects.toMatchObject({ code: 'PROMOTION_NOT_FOUND' });
  });

  it('are rejected with a comment', async () => {
    await applyTinyTask(service, dataDir);
    await addVersion(2);
    const id = await request(2, 'BETTER');
    await expect(promotions.reject(id, { by: 'ann', comment: '' })).rejects.toMatchObject({ code: 'BAD_INPUT' });
    const half = { by: 'ann', comment: 'half \ud83d of a pair' };
    const refusal = { code: 'BAD_INPUT', field: 'comment' };
    await expect(promotions.reject(id, half)).rejects.toMatchObject(refusal);
    await expect(promotions.approve(id, half)).rejects.toMatchObject(refusal);
    expect(await promotions.reject(id, { by: 'ann', comment: 'odd answers' })).toMatchObject({ decision: 'REJECTED' });
    expect(await service.get(VersionsRepository).find('tiny', 2)).toMatchObject({ state: 'REJECTED' });
    expect(await ledgerKinds()).toEqual(['promotion-rejected']);
  });
});

describe('a promotion', () => {
  const resolver = () => new PromotionsResolver(promotions, service.get(Catalogue));

  it('shows the replica that cannot load its version, what it serves instead and why, until it can', async () => {
    await applyTinyTask(service, dataDir);
    const apart = makeDataDir();
    cpSync(join(dataDir, 'bundles'), join(apart, 'bundles'), { recursive: true });
    const other = await startService({ url: database.url, dataDir: apart, mode: 'succeed', role: 'api' });
    try {
      await other.get(ActivationService).activate('tiny', 1);
      await addVersion(2);
      const promotion = await promotions.get(await request(2, 'BETTER'));
      expect(await resolver().replicas(promotion)).toEqual([]);
      await promotions.approve(promotion.id, { by: 'ann' });
      const replicas = async () =>
        (await resolver().replicas(promotion)).toSorted((a, b) => (a.state < b.state ? -1 : 1));
      await expect.poll(replicas, { timeout: 30_000, interval: 200 }).toMatchObject([
        { state: 'FAILED', serves: 1, message: expect.stringContaining('bundle') },
        { state: 'SERVING', serves: 2, message: null },
      ]);
      expect(other.get(ActivationService).served()).toMatchObject({ tiny: 1 });
      cpSync(join(dataDir, 'bundles'), join(apart, 'bundles'), { recursive: true });
      await expect.poll(replicas, { timeout: 60_000, interval: 200 }).toMatchObject([
        { state: 'SERVING', serves: 2 },
        { state: 'SERVING', serves: 2 },
      ]);
    } finally {
      await other.close();
      rmSync(apart, { recursive: true, force: true });
    }
  }, 120_000);

  it('that is to be decided has the challenger, by that alias, and none once it is', async () => {
    await applyTinyTask(service, dataDir);
    const aliased = (alias: string) => promotions.aliased('tiny', alias);
    const none = { code: 'VERSION_NOT_FOUND' };
    await expect(aliased('challenger')).rejects.toMatchObject(none);
    await addVersion(2);
    await addVersion(3);
    await request(2, 'BETTER');
    expect(await aliased('challenger')).toBe(2);
    const id = await request(3, 'BETTER');
    expect([await aliased('champion'), await aliased('challenger')]).toEqual([1, 3]);
    const aliases = async () => {
      const versions = await Promise.all([1, 2, 3].map((version) => service.get(Catalogue).find('tiny', version)));
      return Promise.all(versions.map((row) => promotions.aliasesOf('tiny', row!.version, row!.state)));
    };
    expect(await aliases()).toEqual([['champion'], [], ['challenger']]);
    await promotions.approve(id, { by: 'ann' });
    expect(await aliased('champion')).toBe(3);
    await expect(aliased('challenger')).rejects.toMatchObject(none);
    expect(await aliases()).toEqual([[], [], ['champion']]);
    await expect(aliased('latest')).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'alias' });
  });
});

describe('rollback', () => {
  it('opens no model by its mutation, while the version before is still open', async () => {
    await applyTinyTask(service, dataDir);
    await addVersion(2);
    const model = async () => {
      const { model: served, release } = await service.get(ActivationService).current('tiny');
      release();
      return served;
    };
    const before = await model();
    await promotions.approve(await request(2, 'BETTER'), { by: 'ann' });
    expect((await model()).version).toBe(2);
    const resolver = new PromotionsResolver(promotions, service.get(Catalogue));
    const view = await resolver.rollback('tiny', 'complaints', 'ann');
    expect(view).toMatchObject({ version: 1, state: 'ACTIVE' });
    // The very model that was open, not one that was opened anew.
    expect(await model()).toBe(before);
  });

  it('goes back to the version before, with a reason', async () => {
    await applyTinyTask(service, dataDir);
    await expect(promotions.rollback('tiny', 'why', 'ann')).rejects.toMatchObject({ code: 'CONFLICT' });
    await addVersion(2);
    await promotions.approve(await request(2, 'BETTER'), { by: 'ann' });
    for (const reason of [' ', 'half \ud83d of a pair']) {
      await expect(promotions.rollback('tiny', reason, 'ann')).rejects.toMatchObject({
        code: 'BAD_INPUT',
        field: 'reason',
      });
    }
    await expect(promotions.rollback('none', 'why', 'ann')).rejects.toMatchObject({ code: 'TASK_NOT_FOUND' });
    await takeEvents(service);
    expect(await promotions.rollback('tiny', 'complaints', 'ann')).toMatchObject({ version: 1, state: 'ACTIVE' });
    const told = { version: 1, from: 2, by: 'ann', reason: 'complaints' };
    expect(await takeEvents(service)).toEqual([event('model.rolled-back', told)]);
    expect(await active()).toBe(1);
    expect(service.get(ActivationService).served()).toMatchObject({ tiny: 1 });
    expect(await ledgerKinds()).toEqual(['rolled-back', 'promotion-approved']);
  });
});

describe('the gate', () => {
  it('compares on rows that neither version trained on', async () => {
    await applyTinyTask(service, dataDir);
    const run = await service
      .get(RunsRepository)
      .insertOpen({ task: 'tiny', trigger: 'MANUAL', reason: null, startedBy: null });
    await service.get(RunsRepository).updateOpen(run!.id, { state: 'SUCCEEDED' });
    await addVersion(2, run!.id);
    await addExamples(service, [
      { text: '一', label: 'positive', split: 'test' },
      { text: '二', label: 'negative', split: 'test' },
      { text: '三', label: 'positive', split: 'dev' },
      { text: '四', label: 'gone', split: 'test' },
      { text: '五', label: 'positive', split: 'train' },
    ]);
    const gate = service.get(GateService);
    // What there is no memory for at the moment is asked for again.
    const full = new FewloopError('OVERLOADED', 'the model needs about 3 MB', { retryAfterMs: 1 });
    vi.spyOn(service.get(ActivationService), 'openVersion').mockRejectedValueOnce(full);
    const { report: without } = await gate.compare('tiny', 2);
    expect(without).toMatchObject({ rows: 3, heldOut: { test: 2, dev: 1, trainingTextsKnown: false } });
    expect(without).toMatchObject({ heldOut: { leftOut: { trainedOn: 0, labelNotShared: 1, notAnswered: 0 } } });

    const folder = join(dataDir, 'runs', 'tiny', run!.id);
    mkdirSync(folder, { recursive: true });
    writeFileSync(
      join(folder, 'labelled.jsonl'),
      `${JSON.stringify({ splitGroup: splitGroup('三'), split: 'dev' })}\n`,
    );
    writeFileSync(join(folder, 'unlabelled.jsonl'), `${JSON.stringify({ splitGroup: splitGroup('二') })}\n`);
    const { report, verdict, championVersion } = await gate.compare('tiny', 2);
    expect(report).toMatchObject({ rows: 2, heldOut: { trainingTextsKnown: true, leftOut: { trainedOn: 1 } } });
    // The same bundle twice: nothing differs, and two rows decide nothing.
    expect(report).toMatchObject({
      counts: { onlyChallengerRight: 0, onlyChampionRight: 0 },
      pValue: 1,
      difference: 0,
    });
    expect({ verdict, championVersion }).toEqual({ verdict: 'INCONCLUSIVE', championVersion: 1 });
    expect(report['statement']).toMatch(/On 2 held-out rows .* undecided/);
    expect(report).toMatchObject({
      calibration: 'INSUFFICIENT',
      accuracy: { champion: expect.any(Number), challenger: expect.any(Number) },
      augrc: { challenger: expect.any(Number) },
      confusionChanges: [],
      flips: { changed: 0, examples: [] },
      cost: { champion: { medianMs: expect.any(Number) }, challenger: { p95Ms: expect.any(Number) } },
      heldOutDigest: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    const byLabel = report['byLabel'] as { label: string; rows: number }[];
    expect(byLabel.map(({ label }) => label)).toEqual(['positive', 'negative']);
    expect(byLabel.reduce((sum, { rows }) => sum + rows, 0)).toBe(2);
    // The same rows have the same digest; without the third it is another one.
    expect(without['heldOutDigest']).not.toBe(report['heldOutDigest']);
    await expect(gate.compare('tiny', 9)).rejects.toMatchObject({ code: 'VERSION_NOT_FOUND' });

    // Erased for their age, the unlabelled texts are not known any more; the labelled ones are.
    const labelled = { splitGroup: splitGroup('一'), split: 'train' };
    writeFileSync(join(folder, 'labelled.jsonl'), `${JSON.stringify(labelled)}\n`);
    await service.get(DataSource).query(`UPDATE training_run SET finished_at = now() - interval '31 days'`);
    expect(await service.get(RetentionService).erase('tiny', 30)).toMatchObject({ runs: 1 });
    const { report: later } = await gate.compare('tiny', 2);
    expect(later).toMatchObject({ rows: 2, heldOut: { trainingTextsKnown: false, leftOut: { trainedOn: 1 } } });

    // Texts of rows that have another answer are looked up, so that a forgotten one is nowhere.
    const [known] = await service.get(ExamplesRepository).listSplit('tiny', 'test');
    const flip = { labels: ['positive'], champion: ['positive'], challenger: ['negative'], confidence: 0.6 };
    const examples = [known!.itemKey, 'forgotten'].map((itemKey) => ({ ...flip, itemKey }));
    const told = await promotions.reportOf({ task: 'tiny', report: { flips: { changed: 2, examples } } });
    expect(told).toMatchObject({ flips: { changed: 2, examples: [{ text: known!.text }, { text: null }] } });
  });
});

describe('the gate, where a label was renamed after the training', () => {
  it('compares on its rows too, by the names of now', async () => {
    await applyTinyTask(service, dataDir);
    await addVersion(2);
    await addExamples(service, [
      { text: '一', label: 'positive', split: 'test' },
      { text: '二', label: 'negative', split: 'test' },
      { text: '三', label: 'negative', split: 'dev' },
    ]);
    const gate = service.get(GateService);
    const { report: before } = await gate.compare('tiny', 2);
    await renameLabel(service, 'negative', 'bad');
    const { report } = await gate.compare('tiny', 2);
    expect(report).toMatchObject({ rows: 3, labels: ['positive', 'bad'], heldOut: { leftOut: { labelNotShared: 0 } } });
    // What is right stays right.
    expect([report['counts'], report['accuracy']]).toEqual([before['counts'], before['accuracy']]);
    expect(report['byLabel']).toEqual([
      expect.objectContaining({ label: 'positive', rows: 1 }),
      expect.objectContaining({ label: 'bad', rows: 2 }),
    ]);
  });
});

describe('the guard', () => {
  const said = (label: string, count: number) =>
    Array.from(
      { length: count },
      () => ({ ok: true, itemKey: randomUUID(), prediction: { labels: [label] } }) as const,
    );
  const defects = (count: number) =>
    Array.from({ length: count }, () => ({ ok: false, error: new FewloopError('INTERNAL', 'a defect') }) as const);
  let windows: ServedWindows;
  let guard: GuardService;

  beforeEach(async () => {
    await applyTinyTask(service, dataDir, { pool: { auditRate: 1 } });
    await addVersion(2);
    windows = service.get(ServedWindows);
    guard = service.get(GuardService);
    windows.note('tiny', 1, said('positive', 300), 5);
    const comparison = {
      championVersion: 1,
      verdict: 'BETTER',
      report: { policy: 'ensemble', traffic: { labelShift: 0.02 } },
    } as const;
    const { id } = await promotions.request('tiny', 2, comparison);
    await promotions.approve(id, { by: 'ann' });
  });

  it('leaves a version that answers as the one before', async () => {
    windows.note('tiny', 2, said('positive', 300), 5);
    expect(await guard.look('tiny')).toEqual([]);
    expect(await active()).toBe(2);
  });

  it('has counted none while it watches, so that the first one is a rise', async () => {
    const counted = async () => {
      const text = await service.get<PrometheusMetrics>(METRICS).scrape();
      return /^fewloop_guard_rollbacks_total\{task="tiny"\} (\d+)$/mu.exec(text)?.[1];
    };
    await guard.look('tiny');
    expect(await counted()).toBe('0');
    windows.note('tiny', 2, defects(300), 5);
    await guard.look('tiny');
    expect(await counted()).toBe('1');
  });

  it('goes back where answers fail, says why, and leaves what was gone back to alone', async () => {
    windows.note('tiny', 2, [...said('positive', 60), ...defects(20)], 5);
    await Promise.all([guard.lookAtAll(), guard.lookAtAll()]);
    expect(await active()).toBe(1);
    const [entry] = await service.get(LedgerService).listOfTask('tiny', 5);
    expect(entry).toMatchObject({ kind: 'rolled-back', body: { from: 2, to: 1, by: 'fewloop' } });
    expect(entry!.body).toMatchObject({ reason: expect.stringContaining('of its answers failed (20 of 80)') });
    expect(await ledgerKinds()).toEqual(['rolled-back', 'promotion-approved']);
    // Version 1 fails too now: people decide.
    windows.note('tiny', 1, defects(300), 5);
    expect(await guard.look('tiny')).toEqual([]);
    expect(await active()).toBe(1);
  });

  it('goes back where labels moved further than on the same texts', async () => {
    windows.note('tiny', 2, said('negative', 300), 5);
    expect(await guard.look('tiny')).toEqual([expect.stringContaining('negative is 100.0 % of the texts')]);
    expect(await active()).toBe(1);
  });

  it('goes back whatever else of the task has been asked for and written down since', async () => {
    const transactions = service.get(Transactions);
    const ledger = service.get(LedgerService);
    for (let i = 0; i < 60; i++) {
      await transactions.run((tx) => ledger.append(tx, 'tiny', 'forgotten', { digest: `${i}` }));
      await transactions.run((tx) =>
        ledger.append(tx, 'tiny', 'promotion-approved', { version: 3, promotion: `${i}` }),
      );
      await request(3 + i, 'BETTER', 2);
    }
    windows.note('tiny', 2, said('negative', 300), 5);
    expect(await guard.look('tiny')).toEqual([expect.stringContaining('negative is 100.0 % of the texts')]);
    expect(await active()).toBe(1);
  });

  it('goes back where answers take much longer', async () => {
    for (let i = 0; i < 60; i++) {
      windows.note('tiny', 1, said('positive', 1), 20);
      windows.note('tiny', 2, said('positive', 1), i < 50 ? 20 : 400);
    }
    expect(await guard.look('tiny')).toEqual(['one request in twenty takes 400 ms or more, before 20 ms']);
    expect(await active()).toBe(1);
  });

  it('goes back where audit answers say that it is right less often', async () => {
    const answered = async (version: number, right: number) => {
      const texts = Array.from({ length: 40 }, (_, i) => `第${version}版的文${i}`);
      await admitAnswered(service, texts, 'positive', version);
      await addExamples(
        service,
        texts.map((text, i) => ({
          text,
          label: i < right ? 'positive' : 'negative',
          split: 'train' as const,
          origin: 'AUDIT' as const,
        })),
      );
    };
    await answered(1, 36);
    await answered(2, 30);
    expect(await guard.look('tiny')).toEqual([]);
    await service.get(DataSource).query(`UPDATE example SET labels = '{negative}' WHERE text LIKE '第2版的文1%'`);
    expect(await guard.look('tiny')).toEqual([
      expect.stringMatching(/^\d+\.\d % of 40 audit answers have it right, before 90.0 %$/u),
    ]);
    expect(await active()).toBe(1);
  });

  it('leaves a version that has an older name of a label than the one before', async () => {
    await renameLabel(service, 'positive', 'good');
    // The version before was built anew after the renaming.
    windows.note('tiny', 1, said('good', 2000), 5);
    windows.note('tiny', 2, said('positive', 300), 5);
    expect(await guard.look('tiny')).toEqual([]);
    expect(await active()).toBe(2);
  });

  it('goes back by audit answers whose label was renamed since', async () => {
    for (const [version, right] of [
      [1, 36],
      [2, 20],
    ] as const) {
      const texts = Array.from({ length: 40 }, (_, i) => `第${version}版的文${i}`);
      await admitAnswered(service, texts.slice(0, right), 'positive', version);
      await admitAnswered(service, texts.slice(right), 'negative', version);
      const rows = texts.map((text) => ({ text, label: 'positive', split: 'train', origin: 'AUDIT' }) as const);
      await addExamples(service, rows);
    }
    await renameLabel(service, 'positive', 'good');
    expect(await guard.look('tiny')).toEqual(['50.0 % of 40 audit answers have it right, before 90.0 %']);
    expect(await active()).toBe(1);
  });

  it('watches as long as the task says', async () => {
    windows.note('tiny', 2, defects(300), 5);
    const task = (await service.get(TasksRepository).find('tiny'))!;
    const definition = structuredClone(task.definition) as TaskDefinition;
    definition.learning.promotion.guardMinutes = 0;
    await service.get(DataSource).query('UPDATE task SET definition = $1 WHERE name = $2', [definition, 'tiny']);
    expect(await guard.look('tiny')).toEqual([]);
    expect(await active()).toBe(2);
  });
});
