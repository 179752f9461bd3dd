/** Bundles registered at the same moment by several processes, on a real database. */
import type { INestApplicationContext } from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { RunVersions } from '../../src/learning/run-versions.js';
import { digest } from '../../src/registry/bundle.js';
import { ModelRegistry } from '../../src/registry/versions.js';
import type { TrainingRunRow } from '../../src/storage/entities/training-run.js';
import { VersionsRepository } from '../../src/storage/versions.repository.js';
import { createDatabase } from '../fixtures/database.js';
import { applyTinyTask, makeDataDir, startService } from '../fixtures/learning.js';

const BUNDLES = 6;

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let processes: INestApplicationContext[];

beforeEach(async () => {
  database = await createDatabase();
  dataDir = makeDataDir();
  const options = { url: database.url, dataDir, mode: 'succeed', role: 'api' } as const;
  processes = [await startService(options), await startService(options)];
  await applyTinyTask(processes[0]!, dataDir);
});
afterEach(async () => {
  for (const service of processes) await service.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

/** Version 1's bundle as version 2, with an origin of its own, so that its digest is its own too. */
function bundle(folder: string, origin: string): string {
  cpSync(join(dataDir, 'template'), folder, { recursive: true });
  const file = join(folder, 'manifest.json');
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as object;
  writeFileSync(file, JSON.stringify({ ...manifest, version: 2, origin }));
  return folder;
}

/** The folder of a run that has ended well, whose number was 2 when it began. */
function finishedRun(id: string): string {
  const folder = join(dataDir, 'runs', 'tiny', id);
  mkdirSync(folder, { recursive: true });
  bundle(join(folder, 'bundle'), `run:${id}`);
  writeFileSync(join(folder, 'run.json'), JSON.stringify({ formatVersion: 1, runId: id, task: 'tiny', version: 2 }));
  writeFileSync(join(folder, 'result.json'), JSON.stringify({ ok: true, version: 2, bundle: 'bundle' }));
  return folder;
}

const manifestDigest = (version: number) =>
  digest(readFileSync(join(dataDir, 'bundles', 'tiny', String(version), 'manifest.json')));

it('of several bundles under one number one becomes the version, and the folder is its own', async () => {
  const folders = Array.from({ length: BUNDLES }, (_, i) => bundle(join(dataDir, `made-${i}`), `run:${randomUUID()}`));
  const asked = folders.map((folder, i) =>
    processes[i % 2]!.get(ModelRegistry).registerVersion({ task: 'tiny', version: 2, folder, runId: null }),
  );
  const results = await Promise.allSettled(asked);
  const failed = results.flatMap((one) => (one.status === 'rejected' ? [(one.reason as { code: string }).code] : []));
  expect(failed).toEqual(Array.from({ length: BUNDLES - 1 }, () => 'CONFLICT'));
  const row = await processes[0]!.get(VersionsRepository).find('tiny', 2);
  expect(row?.digest).toBe(manifestDigest(2));
});

it('runs that began under one number get one each', async () => {
  const runs = Array.from({ length: BUNDLES }, () => ({ id: randomUUID(), task: 'tiny' }) as TrainingRunRow);
  const made = await Promise.all(
    runs.map((run, i) => processes[i % 2]!.get(RunVersions).register(run, finishedRun(run.id))),
  );
  const numbers = made.map(({ version }) => version).sort((a, b) => a - b);
  expect(numbers).toEqual(runs.map((_, i) => 2 + i));
  for (const { version, digest: registered, runId, manifest } of made) {
    expect(manifestDigest(version)).toBe(registered);
    expect(manifest).toMatchObject({ version, origin: `run:${runId}` });
  }
});
