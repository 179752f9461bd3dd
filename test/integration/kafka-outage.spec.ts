/** The broker is killed and comes back: every record comes out once. */
import type { INestApplicationContext } from '@nestjs/common';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { freePort, startBroker, type Broker } from '../../scripts/kafka/broker.mjs';
import { IngestService } from '../../src/learning/ingest.js';
import { TaskService } from '../../src/learning/task-service.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile } from '../fixtures/intake.js';
import { expectExactlyOnce, numbered, openTopics, unique, type Topics } from '../fixtures/kafka.js';

let folder: string;
let ports: { port: number; controllerPort: number };
let broker: Broker;
let topics: Topics;
let database: Awaited<ReturnType<typeof createDatabase>>;
let service: INestApplicationContext | undefined;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-outage-'));
  ports = { port: await freePort(), controllerPort: await freePort() };
  broker = await startBroker({ dir: join(folder, 'kafka'), ...ports });
  topics = await openTopics(broker.brokers);
  database = await createDatabase();
}, 60_000);

afterEach(async () => {
  await service?.close();
  await topics?.close();
  await broker?.stop('SIGKILL');
  await database?.drop();
  rmSync(folder, { recursive: true, force: true });
});

it('killed in the midst of it', async () => {
  const [input, output] = [unique('texts'), unique('predictions')];
  await topics.create([input, output, `${input}.dlq`], 2);
  const kafka = { kafkaBrokers: broker.brokers, kafkaGroupId: unique('group'), kafkaSessionTimeoutMs: 6000 };
  service = await startIntake({ url: database.url, dataDir: join(folder, 'data'), role: 'all', kafka });
  await service.get(TaskService).apply(taskFile({ stream: { input, output } }), 'test');
  await topics.send(input, numbered(2000));
  await topics.read(output, 1);
  await broker.stop('SIGKILL');
  broker = await startBroker({ dir: join(folder, 'kafka'), ...ports });
  // The test's own client has to find its way back too.
  await vi.waitFor(() => topics.send(input, numbered(1, 2000)), { timeout: 30_000, interval: 500 });
  expectExactlyOnce(await topics.read(output, 2001, 90_000), 2001);
  expect(await service.get(IngestService).stats('tiny')).toMatchObject({ scored: 2001, failed: 0 });
}, 120_000);
