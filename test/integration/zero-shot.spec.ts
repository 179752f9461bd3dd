/** Zero-shot versions over restarts of the service, on a real database and real model hosts. */
import type { INestApplicationContext } from '@nestjs/common';
import { appendFileSync, cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LedgerService } from '../../src/learning/ledger.js';
import { PoolService } from '../../src/learning/pool.js';
import { PromotionService } from '../../src/learning/promotion.js';
import { TaskService } from '../../src/learning/task-service.js';
import { ZeroShotVersions } from '../../src/learning/zero-shot-versions.js';
import { ActivationService } from '../../src/registry/activation.js';
import type { TaskDefinition } from '../../src/task/types.js';
import { TINY_MODEL } from '../fixtures/bundle.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile, texts } from '../fixtures/intake.js';
import { keyed } from '../fixtures/keyed.js';
import { said } from '../fixtures/learning.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let service: INestApplicationContext | undefined;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = mkdtempSync(join(tmpdir(), 'fewloop-zero-shot-'));
});
afterEach(async () => {
  await service?.close();
  service = undefined;
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

async function restart(baseModel: string): Promise<INestApplicationContext> {
  await service?.close();
  service = undefined;
  service = await startIntake({ url: database.url, dataDir, role: 'api', baseModel });
  return service;
}

/** The same model under another digest: readers of protobuf skip a field that they do not know (number 100, empty). */
function otherBase(): string {
  const folder = join(dataDir, 'other-base');
  cpSync(TINY_MODEL, folder, { recursive: true });
  appendFileSync(join(folder, 'model.onnx'), Buffer.from([0xa2, 0x06, 0x00]));
  return folder;
}

describe('a service that comes back with another base model', () => {
  it('builds the zero-shot version anew at the start, once, and answers with it', async () => {
    const first = await restart(TINY_MODEL);
    expect(await first.get(TaskService).apply(taskFile(), 'ann')).toMatchObject({ activeVersion: 1 });

    const other = otherBase();
    const second = await restart(other);
    await expect
      .poll(async () => (await second.get(TaskService).get('tiny')).activeVersion, { timeout: 20_000 })
      .toBe(2);
    const lease = await second.get(ActivationService).current('tiny');
    expect(lease.model).toMatchObject({ version: 2, taskRevision: 1 });
    lease.release();
    const [entry] = await second.get(LedgerService).listOfTask('tiny', 1);
    expect(entry).toMatchObject({ kind: 'activated', body: { from: 1, to: 2, by: 'fewloop' } });

    const third = await restart(other);
    await third.get(ZeroShotVersions).follow('tiny', 'ann');
    expect(await third.get(TaskService).get('tiny')).toMatchObject({ activeVersion: 2, revision: 1 });
  });
});

describe('a zero-shot version that was gone back to', () => {
  const active = async () => (await service!.get(TaskService).get('tiny')).activeVersion;

  it('stays, whatever texts have come since, until the file changes', async () => {
    const first = await restart(TINY_MODEL);
    await first.get(TaskService).apply(taskFile(), 'ann');
    const { definition } = await first.get(TaskService).get('tiny');
    const scored = texts(400).map((text) => ({ item: keyed(text), prediction: said('positive') }));
    await first.get(PoolService).admit(definition as TaskDefinition, scored);
    await first.get(ZeroShotVersions).rematch('tiny');
    expect(await active()).toBe(2);
    await first.get(PromotionService).rollback('tiny', 'complaints', 'ann');

    const second = await restart(TINY_MODEL);
    await second.get(ZeroShotVersions).rematch('tiny');
    await second.get(TaskService).apply(taskFile(), 'ann');
    expect(await active()).toBe(1);
    await second.get(TaskService).apply(taskFile({ maxLength: 24 }), 'ann');
    expect(await active()).toBe(3);
  });

  it('stays over a restart where the file is a newer one, until that is applied again', async () => {
    const first = await restart(TINY_MODEL);
    await first.get(TaskService).apply(taskFile(), 'ann');
    const changed = taskFile({ maxLength: 24 });
    expect(await first.get(TaskService).apply(changed, 'ann')).toMatchObject({ activeVersion: 2 });
    await first.get(PromotionService).rollback('tiny', 'complaints', 'ann');

    const second = await restart(TINY_MODEL);
    await second.get(ZeroShotVersions).follow('tiny', 'fewloop');
    expect(await active()).toBe(1);
    expect(await second.get(TaskService).apply(changed, 'ann')).toMatchObject({ activeVersion: 3, revision: 2 });
  });
});
