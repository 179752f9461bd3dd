/** What starts runs by itself, on a real database, with a clock that the test sets. */
import type { INestApplicationContext } from '@nestjs/common';
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Clock } from '../../src/common/clock.js';
import { DriftChecks } from '../../src/learning/drift-checks.js';
import { LEAST_TEXTS } from '../../src/learning/drift.js';
import { RunService } from '../../src/learning/runs.js';
import { TriggerService } from '../../src/learning/triggers.js';
import { fraction, itemKey, splitGroup } from '../../src/task/keys.js';
import type { TrainingRunRow } from '../../src/storage/entities/training-run.js';
import { createDatabase } from '../fixtures/database.js';
import { addExamples, applyTinyTask, makeDataDir, startService } from '../fixtures/learning.js';

class SetClock extends Clock {
  #now = new Date();

  override now(): Date {
    return this.#now;
  }

  set(now: Date): void {
    this.#now = now;
  }
}

const DAY_MS = 86_400_000;

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let services: INestApplicationContext[];
let clock: SetClock;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = makeDataDir();
  services = [];
  clock = new SetClock();
});
afterEach(async () => {
  await Promise.all(services.map((service) => service.close()));
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

/** `api`: a process that looks for nothing by itself; the test does. */
async function start(mode: string, role: 'all' | 'api' = 'api'): Promise<INestApplicationContext> {
  const service = await startService({ url: database.url, dataDir, mode, role, clock });
  services.push(service);
  return service;
}

async function startWithTask(trigger: Record<string, unknown>): Promise<INestApplicationContext> {
  const service = await start('succeed');
  await applyTinyTask(service, dataDir, { learning: { trigger: { newLabels: null, ...trigger } } });
  await addExamples(service, [
    { text: '很好', label: 'positive', split: 'train' },
    { text: '太差了', label: 'negative', split: 'train' },
  ]);
  return service;
}

function runsOf(service: INestApplicationContext): Promise<TrainingRunRow[]> {
  return service.get(RunService).list('tiny');
}

/** As if the open run had ended at the clock's time. */
async function endRun(service: INestApplicationContext): Promise<void> {
  await service
    .get(DataSource)
    .query(`UPDATE training_run SET state = 'FAILED', finished_at = $1 WHERE state IN ('QUEUED', 'RUNNING')`, [
      clock.now(),
    ]);
}

/** Once for all, so that a test may cross midnight. */
const TODAY_MS = Date.now();

/** Three in the morning, UTC, so many days from today on. */
function threeOClock(days: number): Date {
  const day = new Date(TODAY_MS + days * DAY_MS);
  return new Date(Date.UTC(day.getUTCFullYear(), day.getUTCMonth(), day.getUTCDate(), 3));
}

describe('a schedule', () => {
  it('starts a run at its time and says which', async () => {
    const service = await startWithTask({ schedule: '0 3 * * *', cooldownMinutes: 0 });
    const triggers = service.get(TriggerService);
    clock.set(new Date(threeOClock(1).getTime() - 1));
    await triggers.checkSchedule('tiny');
    expect((await runsOf(service)).filter(({ dueAt }) => dueAt?.getTime() === threeOClock(1).getTime())).toEqual([]);
    // One for today's three o'clock, where the test began before it.
    await endRun(service);
    clock.set(threeOClock(1));
    await triggers.checkSchedule('tiny');
    const [run] = await runsOf(service);
    expect(run).toMatchObject({ trigger: 'SCHEDULE', dueAt: threeOClock(1) });
    expect(run?.reason).toContain(`0 3 * * *, due at ${threeOClock(1).toISOString()}`);
  });

  it('catches up with one run after a pause over several due times', async () => {
    const before = await startWithTask({ schedule: '0 3 * * *', cooldownMinutes: 0 });
    await before.close();
    services = [];
    clock.set(new Date(threeOClock(5).getTime() + 3_600_000));
    const after = await Promise.all([start('succeed'), start('succeed')]);
    await Promise.all(after.map((service) => service.get(TriggerService).checkSchedule('tiny')));
    const [run, ...others] = await runsOf(after[0]);
    expect(others).toEqual([]);
    expect(run).toMatchObject({ trigger: 'SCHEDULE', dueAt: threeOClock(5) });
    expect(run?.reason).toMatch(/for [45] earlier due times too/);
    await endRun(after[0]);
    for (const service of after) await service.get(TriggerService).checkSchedule('tiny');
    expect(await runsOf(after[0])).toHaveLength(1);
  });

  it('waits for the cool-down of any run, and then starts one', async () => {
    const service = await startWithTask({ schedule: '0 3 * * *', cooldownMinutes: 60 });
    const triggers = service.get(TriggerService);
    clock.set(new Date(threeOClock(2).getTime() - 60_000));
    await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    await endRun(service);
    clock.set(threeOClock(2));
    await triggers.checkSchedule('tiny');
    expect(await runsOf(service)).toHaveLength(1);
    clock.set(new Date(threeOClock(2).getTime() + 59 * 60_000));
    await triggers.checkSchedule('tiny');
    expect(await runsOf(service)).toMatchObject([{ trigger: 'SCHEDULE' }, { trigger: 'MANUAL' }]);
  });

  it('with nothing to train on asks once a due time', async () => {
    const service = await startWithTask({ schedule: '0 3 * * *' });
    const triggers = service.get(TriggerService);
    await service.get(DataSource).query('DELETE FROM example');
    clock.set(threeOClock(2));
    await triggers.checkSchedule('tiny');
    await addExamples(service, [{ text: '很好', label: 'positive', split: 'train' }]);
    await triggers.checkSchedule('tiny');
    expect(await runsOf(service)).toEqual([]);
    clock.set(threeOClock(3));
    await triggers.checkSchedule('tiny');
    expect(await runsOf(service)).toHaveLength(1);
  });
});

it('a run by hand says who asked for it', async () => {
  const service = await startWithTask({});
  expect(await service.get(RunService).start('tiny', 'MANUAL', 'ann')).toMatchObject({ reason: 'asked for by ann' });
});

describe('drift', () => {
  const drift = { falseAlarmsPerYear: 12, minEffect: 0.1 };
  const GOOD = ['很好', '好评', '喜欢', '满意'];
  const BAD = ['退货', '太差', '失望', '垃圾'];

  /** Texts of the reservoir, arrived a second apart from a moment on. */
  async function arrive(service: INestApplicationContext, words: string[], count: number, from: Date): Promise<void> {
    const rows = Array.from({ length: count }, (_, i) => {
      const text = `${words[i % words.length]}${from.getTime()}${i}`;
      return {
        item_key: itemKey({ text }),
        split_group: splitGroup(text),
        text,
        rank: fraction('reservoir', 'tiny', splitGroup(text)),
        at: new Date(from.getTime() + 1000 * i).toISOString(),
      };
    });
    await service.get(DataSource).query(
      `INSERT INTO candidate (task, item_key, split_group, near_group, split, text, prediction, model_version, confidence, margin,
         entropy, vote_entropy, dissenting, route, audit, reservoir_rank, received_at)
       SELECT 'tiny', r.item_key, r.split_group, r.split_group, 'train', r.text, '{}', 1, 0.5, 0, 0.7, 0, 0, 'REVIEW', false, r.rank, r.at
       FROM jsonb_to_recordset($1::jsonb)
         AS r(item_key text, split_group text, text text, rank double precision, at timestamptz)`,
      [JSON.stringify(rows)],
    );
  }

  it('has no check before there are two windows, and then one a day', async () => {
    const service = await startWithTask({ drift });
    const checks = service.get(DriftChecks);
    const begun = Date.now();
    const hour = (hours: number) => new Date(begun + hours * 3_600_000);
    await arrive(service, [...GOOD, ...BAD], 2 * LEAST_TEXTS - 1, hour(1));
    clock.set(hour(24));
    await checks.check('tiny');
    expect(await checks.state('tiny')).toBeNull();
    await arrive(service, [...GOOD, ...BAD], 50, hour(2));
    clock.set(hour(25));
    await checks.check('tiny');
    const first = await checks.state('tiny');
    expect(first).toMatchObject({ version: 1, reference: 74, present: 74, checkedAt: hour(25) });
    expect(first?.statistics.map(({ name }) => name)).toEqual(['labels', 'confidence', 'embeddings']);
    clock.set(hour(48));
    await checks.check('tiny');
    expect((await checks.state('tiny'))?.checkedAt).toEqual(hour(25));
    clock.set(hour(49));
    await checks.check('tiny');
    expect((await checks.state('tiny'))?.checkedAt).toEqual(hour(49));
  });

  it('starts one run, with the statistic that alarmed, after the cool-down', async () => {
    const service = await startWithTask({ drift, cooldownMinutes: { newLabels: 0, schedule: 0, drift: 60 } });
    const triggers = service.get(TriggerService);
    const begun = Date.now();
    const hour = (hours: number) => new Date(begun + hours * 3_600_000);
    await service.get(RunService).start('tiny', 'MANUAL', 'ann');
    clock.set(hour(23.5));
    await endRun(service);
    await arrive(service, GOOD, LEAST_TEXTS, hour(1));
    await arrive(service, BAD, LEAST_TEXTS, hour(2));
    clock.set(hour(24));
    await triggers.checkDrift('tiny');
    expect(await service.get(DriftChecks).state('tiny')).toMatchObject({ alarm: true });
    expect(await runsOf(service)).toHaveLength(1);
    clock.set(hour(24.6));
    await triggers.checkDrift('tiny');
    const [run] = await runsOf(service);
    expect(run).toMatchObject({ trigger: 'DRIFT' });
    expect(run?.reason).toMatch(/^drift of .*embeddings: effect 0\.\d{3}, p 0\.0\d+.* \(level 0\.011 a test\)$/);
    await endRun(service);
    clock.set(hour(30));
    await triggers.checkDrift('tiny');
    expect(await runsOf(service)).toHaveLength(2);
  });
});

it('a service with the trainer role checks by itself', async () => {
  const first = await startWithTask({ schedule: '* * * * *' });
  clock.set(new Date(Date.now() + 2 * 60_000));
  await start('succeed', 'all');
  while ((await runsOf(first)).length === 0) await sleep(50);
  expect((await runsOf(first))[0]).toMatchObject({ trigger: 'SCHEDULE' });
});
