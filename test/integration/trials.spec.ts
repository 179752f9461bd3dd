/** Versions tried on live traffic, on a real database and real model hosts: shadow and canary. */
import type { INestApplicationContext } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { renameSync, rmSync } from 'node:fs';
import { constants, getPriority } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Clock } from '../../src/common/clock.js';
import { FewloopError } from '../../src/common/errors.js';
import { InferenceEngine } from '../../src/inference/engine.js';
import { ServedWindows } from '../../src/inference/served-windows.js';
import type { Prediction } from '../../src/inference/types.js';
import { GuardService } from '../../src/learning/guard.js';
import { LedgerService } from '../../src/learning/ledger.js';
import { PromotionService } from '../../src/learning/promotion.js';
import { TrialService } from '../../src/learning/trials.js';
import { ActivationService } from '../../src/registry/activation.js';
import { ModelRegistry } from '../../src/registry/versions.js';
import { ZeroShotBuilder } from '../../src/registry/zero-shot.js';
import { HostPool } from '../../src/runtime/host-pool.js';
import { CandidateRow } from '../../src/storage/entities/candidate.js';
import { TasksRepository } from '../../src/storage/tasks.repository.js';
import { Transactions } from '../../src/storage/transactions.js';
import { TrialsRepository } from '../../src/storage/trials.repository.js';
import { VersionsRepository } from '../../src/storage/versions.repository.js';
import { fraction, splitGroup, splitOf } from '../../src/task/keys.js';
import type { TaskDefinition } from '../../src/task/types.js';
import { createDatabase } from '../fixtures/database.js';
import { applyTinyTask, event, makeDataDir, renameLabel, startService, takeEvents } from '../fixtures/learning.js';
import { DataSource } from 'typeorm';

class SetClock extends Clock {
  private aheadMs = 0;
  override now(): Date {
    return new Date(Date.now() + this.aheadMs);
  }
  ahead(minutes: number): void {
    this.aheadMs += minutes * 60_000;
  }
}

const textsOf = (count: number) => Array.from({ length: count }, (_, i) => `第${i}条：味道不错，服务也好`);
const TEXTS = textsOf(60);

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let clock: SetClock;
let service: INestApplicationContext;
let promotions: PromotionService;
let trials: TrialService;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = makeDataDir();
  clock = new SetClock();
  service = await startService({ url: database.url, dataDir, mode: 'succeed', clock });
  promotions = service.get(PromotionService);
  trials = service.get(TrialService);
});
afterEach(async () => {
  await service.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

/** The task with version 1 active, and a version 2 that says one label far more often. */
async function applyTask(promotion: Partial<TaskDefinition['learning']['promotion']> = {}): Promise<void> {
  await applyTinyTask(service, dataDir, { learning: { trigger: { newLabels: null }, promotion } });
  await addVersion(2);
}

async function addVersion(version: number): Promise<void> {
  const { definition } = (await service.get(TasksRepository).find('tiny')) as { definition: object };
  const outFolder = join(dataDir, `made-${version}`);
  const items = TEXTS.map((text) => ({ text }));
  const request = {
    definition: definition as TaskDefinition,
    version,
    revision: 1,
    items,
    prior: [0.95, 0.05],
    outFolder,
  };
  await service.get(ZeroShotBuilder).build(request);
  await service.get(ModelRegistry).registerVersion({ task: 'tiny', version, folder: outFolder, runId: null });
}

async function request(version: number, championVersion = 1): Promise<string> {
  const report = { statement: '', policy: 'ensemble', traffic: { labelShift: 0.02 } };
  const comparison = { championVersion, verdict: 'BETTER', report } as const;
  return (await promotions.request('tiny', version, comparison)).id;
}

/** As the API asks: one text a request. */
async function ask(texts: readonly string[], by = service): Promise<Prediction[]> {
  const said: Prediction[] = [];
  for (const text of texts) {
    const lease = await by.get(ActivationService).current('tiny', text);
    const [outcome] = await by
      .get(InferenceEngine)
      .classify(lease.model, { items: [{ text }], priority: 'interactive' })
      .finally(() => lease.release());
    if (!outcome!.ok) throw outcome!.error;
    said.push(outcome!.prediction);
  }
  return said;
}

const state = async (version: number) => (await service.get(VersionsRepository).find('tiny', version))?.state;
const active = async () => (await service.get(TasksRepository).find('tiny'))?.activeVersion;
const newest = async (version = 2) => (await trials.listOf('tiny', version))[0]!;
const ledger = async () => (await service.get(LedgerService).listOfTask('tiny', 10)).map(({ kind }) => kind);

/** What this process saw of the trial is in the database. */
async function seen(count: (trial: Awaited<ReturnType<typeof newest>>) => number, expected: number): Promise<void> {
  await expect
    .poll(async () => {
      await trials.look();
      return count(await newest());
    })
    .toBe(expected);
}

/** Whether a model host here leaves the processor to whoever else wants it. */
async function yielding(): Promise<boolean> {
  const pids = await service.get(HostPool).pids();
  return pids.some((pid) => getPriority(pid) === constants.priority.PRIORITY_LOW);
}

describe('a shadow', () => {
  it('is asked what the active version answers, and changes no answer', async () => {
    await applyTask();
    expect(await trials.startShadow('tiny', 2, 'ann', null)).toMatchObject({ state: 'SHADOW' });
    expect(await yielding()).toBe(true);
    const said = await ask(TEXTS);
    expect(new Set(said.map(({ modelVersion }) => modelVersion))).toEqual(new Set([1]));
    await seen(({ compared, failed, missed }) => compared + failed + missed, TEXTS.length);
    const trial = await newest();
    expect(trial).toMatchObject({ kind: 'SHADOW', against: 1, startedBy: 'ann', endsAt: null, failed: 0, answered: 0 });
    // By the version itself, asked afterwards.
    const lease = await service.get(ActivationService).openVersion('tiny', 2);
    const outcomes = await service
      .get(InferenceEngine)
      .classify(lease.model, { items: TEXTS.map((text) => ({ text })), priority: 'bulk', anew: true });
    lease.release();
    const other = outcomes.filter((outcome, i) => outcome.ok && outcome.prediction.label !== said[i]!.label).length;
    expect(other).toBeGreaterThan(0);
    expect(trial.changed).toBe(other);
    const flips = await trials.flipsOf(trial.id);
    expect(flips.reduce((sum, { texts }) => sum + texts, 0)).toBe(other);
    for (const { champion, challenger } of flips) expect(champion).not.toBe(challenger);
  });

  it('brings disagreements into the review queue, as questions of train groups alone', async () => {
    await applyTask();
    await trials.startShadow('tiny', 2, 'ann', null);
    await ask(TEXTS);
    await seen(({ compared }) => compared, TEXTS.length);
    const trial = await newest();
    const rows = await service.get(DataSource).manager.findBy(CandidateRow, { task: 'tiny', reason: 'CHALLENGER' });
    expect(rows.length).toBe(trial.asked);
    expect(trial.asked).toBeGreaterThan(0);
    expect(trial.asked).toBeLessThanOrEqual(Math.min(30, trial.changed));
    for (const { text, state: open, priority, modelVersion, audit, split } of rows) {
      const asked = { split: splitOf(splitGroup(text)), stored: split, open, audit, modelVersion };
      expect(asked).toEqual({ split: 'train', stored: 'train', open: 'OPEN', audit: false, modelVersion: 1 });
      expect(priority).toBeGreaterThan(0);
    }
  });

  it('ends when it is stopped, and is a candidate again', async () => {
    await applyTask();
    await trials.startShadow('tiny', 2, 'ann', 5);
    for (const reason of [' ', 'half \ud83d of a pair']) {
      await expect(trials.stop('tiny', reason, 'ben')).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'reason' });
    }
    expect(await trials.stop('tiny', 'seen enough', 'ben')).toMatchObject({
      outcome: 'STOPPED',
      reason: 'seen enough',
    });
    const told = { version: 2, champion: 1, outcome: 'STOPPED', reason: 'seen enough', by: 'ben' };
    expect(await takeEvents(service)).toEqual([event('shadow.ended', told)]);
    expect(await state(2)).toBe('CANDIDATE');
    await expect(trials.stop('tiny', 'again', 'ben')).rejects.toMatchObject({ code: 'CONFLICT' });
    await ask(TEXTS.slice(0, 5));
    await trials.look();
    expect((await newest()).compared).toBe(0);
  });

  it('says where its version cannot be opened, and no longer once it can', async () => {
    await applyTask();
    const folder = join(dataDir, 'bundles', 'tiny', '2');
    renameSync(folder, `${folder}.away`);
    await trials.startShadow('tiny', 2, 'ann', null);
    expect((await newest()).failure).toMatch(/^cannot be opened by .+: .+/u);
    await ask(TEXTS.slice(0, 5));
    renameSync(`${folder}.away`, folder);
    const now = performance.now.bind(performance);
    const later = vi.spyOn(performance, 'now').mockImplementation(() => now() + 61_000);
    // What was opened and cannot be told is closed: the next look opens it again.
    vi.spyOn(service.get(TrialsRepository), 'setFailure').mockRejectedValueOnce(new Error('the database is away'));
    await trials.look();
    expect(await yielding()).toBe(false);
    await trials.look();
    later.mockRestore();
    expect(await yielding()).toBe(true);
    expect((await newest()).failure).toBeNull();
    await ask(TEXTS.slice(5, 10));
    await seen(({ compared }) => compared, 5);
  });

  it('is refused where there is nothing to be compared, or another version is on trial', async () => {
    await applyTask();
    await addVersion(3);
    const refused = (version: number, minutes: number | null = null) =>
      trials.startShadow('tiny', version, 'ann', minutes).catch(({ code }: FewloopError) => code);
    expect(await refused(9)).toBe('VERSION_NOT_FOUND');
    expect(await refused(1)).toBe('CONFLICT');
    expect(await refused(2, 0)).toBe('BAD_INPUT');
    await trials.startShadow('tiny', 2, 'ann', null);
    expect(await refused(3)).toBe('CONFLICT');
    expect(await trials.startShadow('tiny', 2, 'ann', null)).toMatchObject({ state: 'SHADOW' });
    expect(await trials.listOf('tiny', 2)).toHaveLength(1);
  });

  it('comes before an approval where the task asks for it', async () => {
    await applyTask({ shadowMinutes: 30 });
    const id = await request(2);
    await trials.look();
    expect(await newest()).toMatchObject({ kind: 'SHADOW', startedBy: 'fewloop', endedAt: null });
    const refused = promotions.approve(id, { by: 'ann' });
    await expect(refused).rejects.toMatchObject({
      code: 'GATE_NOT_PASSED',
      message: expect.stringContaining('30 minutes first until'),
    });
    await takeEvents(service);
    clock.ahead(31);
    await trials.look();
    expect(await newest()).toMatchObject({ outcome: 'COMPLETED' });
    const told = { version: 2, champion: 1, outcome: 'COMPLETED', reason: null, by: 'fewloop' };
    expect(await takeEvents(service)).toEqual([event('shadow.ended', told)]);
    expect(await state(2)).toBe('CANDIDATE');
    await trials.look();
    expect(await trials.listOf('tiny', 2)).toHaveLength(1);
    await promotions.approve(id, { by: 'ann' });
    expect(await active()).toBe(2);
  });

  it('has to take as long as the task asks: a shorter one is none, whoever began it and when', async () => {
    await applyTask({ shadowMinutes: 30 });
    await trials.startShadow('tiny', 2, 'ann', 1);
    clock.ahead(1);
    await trials.look();
    expect(await newest()).toMatchObject({ outcome: 'COMPLETED', startedBy: 'ann' });
    const id = await request(2);
    const approve = () => promotions.approve(id, { by: 'ann' });
    await expect(approve()).rejects.toMatchObject({ code: 'GATE_NOT_PASSED' });
    await trials.look();
    expect(await newest()).toMatchObject({ startedBy: 'fewloop', endedAt: null });
    // What the service began is stopped, and a shorter one begun in its place.
    await trials.stop('tiny', 'in a hurry', 'ann');
    await trials.startShadow('tiny', 2, 'ann', 1);
    await expect(approve()).rejects.toMatchObject({ message: expect.stringMatching(/for 30 minutes first\./u) });
    clock.ahead(1);
    await trials.look();
    expect(await newest()).toMatchObject({ outcome: 'COMPLETED', startedBy: 'ann' });
    await expect(approve()).rejects.toMatchObject({ code: 'GATE_NOT_PASSED' });
    await trials.startShadow('tiny', 2, 'ann', 30);
    clock.ahead(30);
    await trials.look();
    // A short one after it takes nothing away.
    await trials.startShadow('tiny', 2, 'ann', 1);
    clock.ahead(1);
    await trials.look();
    expect((await approve()).override).toBe(false);
    expect(await active()).toBe(2);
  });

  it('can be gone without for a reason, and ends with the decision', async () => {
    await applyTask({ shadowMinutes: 30 });
    const id = await request(2);
    await trials.look();
    await takeEvents(service);
    const approved = await promotions.approve(id, { by: 'ann', override: true, comment: 'the old one is broken' });
    expect(approved).toMatchObject({ override: true });
    const told = { outcome: 'SUPERSEDED', reason: 'a version was decided on', by: 'ann' };
    expect(await takeEvents(service)).toEqual([
      event('shadow.ended', { version: 2, champion: 1, ...told }),
      event('model.activated', { version: 2, from: 1, by: 'ann' }),
    ]);
    expect(await newest()).toMatchObject({ outcome: 'SUPERSEDED' });
    expect(await state(2)).toBe('ACTIVE');
    await addVersion(3);
    const other = await request(3, 2);
    await trials.look();
    expect(await state(3)).toBe('SHADOW');
    await takeEvents(service);
    await promotions.reject(other, { by: 'ann', comment: 'no' });
    expect(await takeEvents(service)).toEqual([event('shadow.ended', { version: 3, champion: 2, ...told })]);
    expect(await state(3)).toBe('REJECTED');
    expect(await newest(3)).toMatchObject({ outcome: 'SUPERSEDED' });
  });
});

describe('a canary', () => {
  const isCanarys = (text: string, percent: number) => fraction('canary', 'tiny', text) < percent / 100;

  async function approve(promotion: Partial<TaskDefinition['learning']['promotion']>): Promise<void> {
    await applyTask(promotion);
    const id = await request(2);
    await takeEvents(service);
    await promotions.approve(id, { by: 'ann' });
    await trials.look();
  }

  it('answers its share, the same text always alike, and becomes the active version by itself', async () => {
    await approve({ canaryPercent: 50, canaryMinutes: 10 });
    const until = (await newest()).endsAt!.toISOString();
    const told = { version: 2, from: 1, by: 'ann' };
    expect(await takeEvents(service)).toEqual([event('canary.started', { ...told, percent: 50, until })]);
    expect([await active(), await state(2), await state(1)]).toEqual([1, 'CANARY', 'ACTIVE']);
    expect(await yielding()).toBe(false);
    const texts = textsOf(180);
    const said = await ask(texts);
    texts.forEach((text, i) => expect(said[i]!.modelVersion).toBe(isCanarys(text, 50) ? 2 : 1));
    const own = said.filter(({ modelVersion }) => modelVersion === 2).length;
    expect(own).toBeGreaterThan(50);
    await seen(({ answered }) => answered, own);
    expect(await active()).toBe(1);
    clock.ahead(11);
    await trials.look();
    expect(await takeEvents(service)).toEqual([event('model.activated', told)]);
    expect([await active(), await state(2), await state(1)]).toEqual([2, 'ACTIVE', 'RETIRED']);
    expect(await newest()).toMatchObject({ kind: 'CANARY', percent: 50, outcome: 'COMPLETED' });
    expect(await ledger()).toEqual(['canary-completed', 'promotion-approved']);
    const after = await ask(TEXTS.slice(0, 10));
    expect(new Set(after.map(({ modelVersion }) => modelVersion))).toEqual(new Set([2]));
  });

  it('goes on while it has answered too little to be judged', async () => {
    await approve({ canaryPercent: 50, canaryMinutes: 10 });
    await ask(TEXTS.slice(0, 20));
    clock.ahead(60);
    await trials.look();
    expect([await active(), await state(2)]).toEqual([1, 'CANARY']);
  });

  it('goes back by itself where its answers fail, and says why', async () => {
    await approve({ canaryPercent: 20 });
    const defects = Array.from(
      { length: 60 },
      () => ({ ok: false, error: new FewloopError('INTERNAL', 'x') }) as const,
    );
    service.get(ServedWindows).note('tiny', 2, defects, 5);
    await takeEvents(service);
    await trials.look();
    expect([await active(), await state(2)]).toEqual([1, 'REJECTED']);
    const trial = await newest();
    const told = { version: 2, champion: 1, reason: trial.reason, by: 'fewloop' };
    expect(await takeEvents(service)).toEqual([event('canary.stopped', told)]);
    expect(trial).toMatchObject({
      outcome: 'WENT_BACK',
      reason: expect.stringContaining('100.0 % of its answers failed'),
    });
    expect(await ledger()).toEqual(['canary-stopped', 'promotion-approved']);
    const said = await ask(TEXTS.slice(0, 20));
    expect(new Set(said.map(({ modelVersion }) => modelVersion))).toEqual(new Set([1]));
  });

  it('goes on where only the name of a label is older than the active version’s', async () => {
    await approve({ canaryPercent: 20 });
    await renameLabel(service, 'positive', 'good');
    const said = (label: string) =>
      Array.from(
        { length: 300 },
        () => ({ ok: true, itemKey: randomUUID(), prediction: { labels: [label] } }) as const,
      );
    const windows = service.get(ServedWindows);
    windows.note('tiny', 1, said('good'), 5);
    windows.note('tiny', 2, said('positive'), 5);
    await trials.look();
    expect([await active(), await state(2)]).toEqual([1, 'CANARY']);
    windows.note('tiny', 2, [...said('negative'), ...said('negative')], 5);
    await trials.look();
    expect(await newest()).toMatchObject({
      outcome: 'WENT_BACK',
      reason: expect.stringContaining('good is 33.3 % of the texts, before 100.0 %'),
    });
  });

  it('is stopped by a rollback, which changes nothing else', async () => {
    await approve({ canaryPercent: 20 });
    await takeEvents(service);
    expect(await promotions.rollback('tiny', 'complaints', 'ben')).toMatchObject({ version: 1, state: 'ACTIVE' });
    const told = { version: 2, champion: 1, reason: 'complaints', by: 'ben' };
    expect(await takeEvents(service)).toEqual([event('canary.stopped', told)]);
    expect(await state(2)).toBe('REJECTED');
    expect(await newest()).toMatchObject({ outcome: 'STOPPED', reason: 'complaints' });
  });

  it('keeps other versions waiting until it has ended', async () => {
    await approve({ canaryPercent: 20 });
    await addVersion(3);
    const id = await request(3);
    const refused = promotions.approve(id, { by: 'ann' });
    await expect(refused).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining('version 2 of tiny is a canary'),
    });
    await trials.stop('tiny', 'a better one is here', 'ann');
    await promotions.approve(id, { by: 'ann' });
    await trials.look();
    expect(await state(3)).toBe('CANARY');
  });

  it('ends where another version becomes active', async () => {
    await approve({ canaryPercent: 20 });
    await addVersion(3);
    await service.get(Transactions).run((tx) => service.get(ModelRegistry).setActive('tiny', 3, tx));
    await takeEvents(service);
    await trials.look();
    const why = { outcome: 'SUPERSEDED', reason: 'version 3 is active now' };
    expect(await newest()).toMatchObject(why);
    const told = { version: 2, champion: 1, ...why, by: 'fewloop' };
    expect(await takeEvents(service)).toEqual([event('canary.stopped', told)]);
    expect(await state(2)).toBe('CANDIDATE');
  });

  it('that another active version cut short is compared with that one when it is approved again', async () => {
    await approve({ canaryPercent: 20, minVerdict: 'worse' });
    const [first] = await promotions.list('tiny');
    const again = () => promotions.approve(first!.id, { by: 'ann' }).catch(({ message }: FewloopError) => message);
    expect(await again()).toBe('the promotion is approved already');
    await addVersion(3);
    await service.get(Transactions).run((tx) => service.get(ModelRegistry).setActive('tiny', 3, tx));
    await trials.look();
    // What a newer run asks for goes first.
    await addVersion(4);
    const newer = await request(4, 3);
    expect(await again()).toBe(`version 4 is to be decided on first: promotion ${newer} is open`);
    await promotions.reject(newer, { by: 'ann', comment: 'no' });
    expect(await again()).toMatch(/^its canary ended when another version became active; compared again as promotion/u);
    const [second] = await promotions.list('tiny');
    expect(second).toMatchObject({ version: 2, championVersion: 3, decision: null });
    expect(await promotions.get(first!.id)).toMatchObject({ decision: 'APPROVED' });
    // Once: the new one is what is to be decided.
    expect(await again()).toBe('the promotion is approved already');
    await promotions.approve(second!.id, { by: 'ann' });
    expect(await state(2)).toBe('CANARY');
    expect(await newest()).toMatchObject({ kind: 'CANARY', against: 3, endedAt: null });
  });

  it('is the same in every process, and ends once', async () => {
    const second = await startService({ url: database.url, dataDir, mode: 'succeed', clock });
    try {
      await approve({ canaryPercent: 50, canaryMinutes: 10 });
      await second.get(TrialService).look();
      const said = await ask(TEXTS, second);
      TEXTS.forEach((text, i) => expect(said[i]!.modelVersion).toBe(isCanarys(text, 50) ? 2 : 1));
      await ask(textsOf(150));
      await second.get(TrialService).look();
      await trials.look();
      clock.ahead(11);
      await Promise.all([trials.look(), second.get(TrialService).look()]);
      expect(await active()).toBe(2);
      expect((await ledger()).filter((kind) => kind === 'canary-completed')).toHaveLength(1);
      // The guard watches what has become active.
      const defects = Array.from(
        { length: 80 },
        () => ({ ok: false, error: new FewloopError('INTERNAL', 'x') }) as const,
      );
      service.get(ServedWindows).note('tiny', 2, defects, 5);
      expect(await service.get(GuardService).look('tiny')).toEqual([expect.stringContaining('of its answers failed')]);
      expect(await active()).toBe(1);
    } finally {
      await second.close();
    }
  });
});
