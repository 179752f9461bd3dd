/** The stream in a real Kafka, with the tiny model: what goes in comes out once, as the contract has it. */
import type { INestApplicationContext } from '@nestjs/common';
import kafkajs from 'kafkajs';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { InferenceEngine } from '../../src/inference/engine.js';
import { IngestService } from '../../src/learning/ingest.js';
import { PoolService } from '../../src/learning/pool.js';
import { DEAD_LETTERS, type DeadLetters } from '../../src/learning/stream-ports.js';
import { TaskService } from '../../src/learning/task-service.js';
import { connectKafka } from '../../src/stream/kafka/client.js';
import { topicIds } from '../../src/stream/kafka/internals.js';
import { outputRecord } from '../../src/stream/kafka/record-schema.js';
import { parseTask } from '../../src/task/definition.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile, texts } from '../fixtures/intake.js';
import { openTopics, unique, type ReadMessage, type Topics } from '../fixtures/kafka.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let topics: Topics;
let services: INestApplicationContext[];
let input: string;
let output: string;
let group: string;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = mkdtempSync(join(tmpdir(), 'fewloop-kafka-'));
  topics = await openTopics();
  services = [];
  input = unique('texts');
  output = unique('predictions');
  group = unique('group');
  await topics.create([input, output, `${input}.dlq`], 2);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await Promise.all(services.map((service) => service.close()));
  await topics.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

async function start(role: 'all' | 'api' = 'all', settings: object = {}): Promise<INestApplicationContext> {
  const kafka = { kafkaBrokers: topics.brokers, kafkaGroupId: group, kafkaSessionTimeoutMs: 6000, ...settings };
  const service = await startIntake({ url: database.url, dataDir, role, kafka });
  services.push(service);
  return service;
}

const apply = (service: INestApplicationContext, changes: object = {}) =>
  service.get(TaskService).apply(taskFile({ stream: { input, output }, ...changes }), 'test');

const valueOf = ({ value }: ReadMessage) => JSON.parse(String(value)) as Record<string, never>;

it('scores texts and objects, passes headers, key and further fields on, and keeps history and candidates', async () => {
  const service = await start();
  await apply(service);
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  await topics.send(input, [
    { key: '甲', value: '味道很好' },
    { key: '乙', value: '{"id":"r2","text":"太差了","shop":7}', headers: { traceparent } },
    { key: null, value: null },
    { key: Buffer.from([0xff, 0]), value: Buffer.from([0xfe, 0x00, 0xff]), headers: { traceparent } },
  ]);
  const scored = await topics.read(output, 2);
  const byKey = new Map(scored.map((message) => [String(message.key), message]));
  expect([...byKey.keys()].sort()).toEqual(['乙', '甲'].sort());
  const second = byKey.get('乙')!;
  expect(outputRecord.parse(valueOf(second))).toMatchObject({
    id: 'r2',
    task: 'tiny',
    modelVersion: 1,
    metadata: { shop: 7 },
    source: { topic: input },
  });
  expect(String(second.headers['traceparent'])).toBe(traceparent);
  expect(valueOf(byKey.get('甲')!)['id']).toMatch(new RegExp(`^${input}:\\d:\\d+$`, 'u'));

  const dead = await topics.read(`${input}.dlq`, 2);
  const garbage = dead.find(({ value }) => value !== null)!;
  expect(garbage.value).toEqual(Buffer.from([0xfe, 0x00, 0xff]));
  expect(garbage.key).toEqual(Buffer.from([0xff, 0]));
  expect(Object.entries(garbage.headers).map(([name, value]) => [name, String(value)])).toEqual([
    ['traceparent', traceparent],
    ['fewloop-error-code', 'BAD_INPUT'],
    ['fewloop-error-message', 'value: is not UTF-8'],
    ['fewloop-source', expect.stringMatching(new RegExp(`^${input}:\\d:\\d+$`, 'u'))],
  ]);
  expect(dead.find(({ value }) => value === null)!.key).toBeNull();

  const rows = await service
    .get(DataSource)
    .query('SELECT topic_id, state, error_code, label IS NOT NULL AS labelled FROM stream_record ORDER BY state, 4');
  const id = (await topicIds(topics.kafka, [input])).get(input);
  expect(rows).toHaveLength(4);
  expect(rows[0]).toEqual({ topic_id: id, state: 'FAILED', error_code: 'BAD_INPUT', labelled: false });
  expect(rows[3]).toEqual({ topic_id: id, state: 'SCORED', error_code: null, labelled: true });
  expect((await service.get(PoolService).stats('tiny')).total).toBe(2);
  expect(await service.get(IngestService).stats('tiny')).toEqual({ pending: 0, scored: 2, failed: 2 });
});
