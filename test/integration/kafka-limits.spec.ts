/** What cannot be written, and what cannot be scored yet, holds up nobody and is not lost. */
import type { INestApplicationContext } from '@nestjs/common';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { IngestService } from '../../src/learning/ingest.js';
import { DEAD_LETTERS, type DeadLetters } from '../../src/learning/stream-ports.js';
import { TaskService } from '../../src/learning/task-service.js';
import { ActivationService } from '../../src/registry/activation.js';
import { FewloopError } from '../../src/common/errors.js';
import { parseTask } from '../../src/task/definition.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile } from '../fixtures/intake.js';
import { expectExactlyOnce, numbered, openTopics, unique, valueOf, type Topics } from '../fixtures/kafka.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let topics: Topics;
let service: INestApplicationContext;
let input: string;
let output: string;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = mkdtempSync(join(tmpdir(), 'fewloop-limits-'));
  topics = await openTopics();
  [input, output] = [unique('texts'), unique('predictions')];
  await topics.create([input, output, `${input}.dlq`], 1);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await service?.close();
  await topics.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

async function start(settings: object = {}): Promise<void> {
  const kafka = { kafkaBrokers: topics.brokers, kafkaGroupId: unique('group'), kafkaSessionTimeoutMs: 6000 };
  service = await startIntake({ url: database.url, dataDir, role: 'all', kafka: { ...kafka, ...settings } });
}

const apply = (changes: object = {}) =>
  service.get(TaskService).apply(taskFile({ stream: { input, output }, ...changes }), 'test');

/** No topic takes more than that in a batch of records, compressed. */
const limit = (topic: string, bytes: number) =>
  topics.admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: 2, name: topic, configEntries: [{ name: 'max.message.bytes', value: String(bytes) }] }],
  });

it('an output topic that takes little: smaller requests, and what is too large alone is dead', async () => {
  await limit(output, 4_000);
  const records = numbered(400);
  const large = (at: number) => JSON.stringify({ id: `r${at}`, text: `很好${at}`, seq: at, note: '长'.repeat(3_000) });
  for (const at of [3, 200]) records[at]!.value = large(at);
  await topics.send(input, records);
  // Uncompressed, so that sizes are what they seem.
  await start({ kafkaCompression: 'none' });
  await apply();
  expectExactlyOnce(await topics.read(output, 398), 398);
  const dead = await topics.read(`${input}.dlq`, 2);
  expect(dead.map(({ value }) => String(value))).toEqual([large(3), large(200)]);
  expect(String(dead[0]!.headers['fewloop-error-code'])).toBe('BAD_INPUT');
  expect(String(dead[0]!.headers['fewloop-error-message'])).toMatch(
    new RegExp(`bytes are more than topic ${output} takes: raise its max.message.bytes$`, 'u'),
  );
  expect(await service.get(IngestService).stats('tiny')).toMatchObject({ scored: 398, failed: 2 });

  // Once the topic takes it, it is replayed.
  await limit(output, 1_000_000);
  const definition = parseTask(taskFile({ stream: { input, output } }));
  expect(await service.get<DeadLetters>(DEAD_LETTERS).replay(definition, 10)).toBe(2);
  const all = await topics.read(output, 400);
  expect(new Set(all.map((message) => String(valueOf(message)['id']))).size).toBe(400);
});

it('an input topic that takes little: ingest goes in smaller requests, and refuses what is too large alone', async () => {
  await limit(input, 4_000);
  await start({ kafkaCompression: 'none' });
  await apply();
  const ingest = service.get(IngestService);
  const inputs = Array.from({ length: 300 }, (_, i) => ({ id: `r${i}`, text: `物流很快，包装完好，下次还买${i}` }));
  expect(await ingest.ingest('tiny', inputs)).toMatchObject({ accepted: 300, rejected: [] });
  await expect(ingest.ingest('tiny', [{ id: 'large', text: '好'.repeat(3_000) }])).rejects.toMatchObject({
    code: 'BAD_INPUT',
    field: 'text',
  });
  expect(await ingest.ingest('tiny', [{ id: 'last', text: '太差了' }])).toMatchObject({ accepted: 1 });
  const ids = (await topics.read(output, 301)).map((message) => String(valueOf(message)['id']));
  expect(ids).toEqual([...inputs.map(({ id }) => id), 'last']);
});

it('a task without a model holds up a shared topic for its patience; then its records are dead, in order', async () => {
  const current = ActivationService.prototype.current;
  let missing = true;
  vi.spyOn(ActivationService.prototype, 'current').mockImplementation(function (this: ActivationService, task) {
    if (task === 'later' && missing) throw new FewloopError('NO_ACTIVE_MODEL', 'task later has no active model yet');
    return current.call(this, task);
  });
  await start({ kafkaModelPatienceS: 2 });
  await apply();
  await apply({ name: 'later' });
  const record = (task: string, seq: number) => ({
    key: 'k',
    value: JSON.stringify({ id: `${task}${seq}`, task, text: `很好${seq}`, seq }),
  });
  const records = Array.from({ length: 40 }, (_, seq) => record(seq % 4 === 3 ? 'later' : 'tiny', seq));
  const sentAt = performance.now();
  await topics.send(input, records);
  expectExactlyOnce(await topics.read(output, 30), 30);
  expect(performance.now() - sentAt).toBeGreaterThan(2000);
  const dead = await topics.read(`${input}.dlq`, 10);
  expect(dead.map((message) => Number(valueOf(message)['seq']))).toEqual([3, 7, 11, 15, 19, 23, 27, 31, 35, 39]);
  expect(dead.map(({ headers }) => String(headers['fewloop-error-code']))).toEqual(Array(10).fill('NO_ACTIVE_MODEL'));

  // With its model there, they are replayed, and what comes is scored.
  missing = false;
  const definition = parseTask(taskFile({ name: 'later', stream: { input, output } }));
  expect(await service.get<DeadLetters>(DEAD_LETTERS).replay(definition, 100)).toBe(10);
  await topics.send(input, [record('later', 40)]);
  const all = (await topics.read(output, 41)).map((message) => String(valueOf(message)['id']));
  expect(all.slice(30)).toEqual([3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 40].map((seq) => `later${seq}`));
  const [row] = await service
    .get(DataSource)
    .query(`SELECT count(*)::int AS count FROM stream_record WHERE error_code = 'NO_ACTIVE_MODEL'`);
  expect(row).toEqual({ count: 10 });
});

it('on a topic of its own a task waits for its first model, however long', async () => {
  const current = ActivationService.prototype.current;
  let refused = 0;
  vi.spyOn(ActivationService.prototype, 'current').mockImplementation(function (this: ActivationService, task) {
    if (refused++ < 3) throw new FewloopError('NO_ACTIVE_MODEL', `task ${task} has no active model yet`);
    return current.call(this, task);
  });
  await start({ kafkaModelPatienceS: 1 });
  await apply();
  await topics.send(input, numbered(20));
  expectExactlyOnce(await topics.read(output, 20), 20);
  expect(refused).toBeGreaterThan(3);
  expect(await service.get(IngestService).stats('tiny')).toMatchObject({ scored: 20, failed: 0 });
});
