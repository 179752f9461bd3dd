/** The stream in a real Kafka, with the tiny model: what goes in comes out once, as the contract has it. */
import type { INestApplicationContext } from '@nestjs/common';
import kafkajs from 'kafkajs';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Health } from '../../src/common/health.js';
import { InferenceEngine } from '../../src/inference/engine.js';
import { IngestService } from '../../src/learning/ingest.js';
import { PoolService } from '../../src/learning/pool.js';
import { DEAD_LETTERS, type DeadLetters } from '../../src/learning/stream-ports.js';
import { TaskService } from '../../src/learning/task-service.js';
import { TopicIds } from '../../src/stream/kafka/internals.js';
import { outputRecord } from '../../src/stream/kafka/record-schema.js';
import { STREAM_PORT, type StreamPort } from '../../src/stream/records.js';
import { parseTask } from '../../src/task/definition.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile } from '../fixtures/intake.js';
import {
  cutConnections,
  expectExactlyOnce,
  numbered,
  openTopics,
  unique,
  valueOf,
  type ReadMessage,
  type Topics,
} from '../fixtures/kafka.js';

const Broker = createRequire(import.meta.url)('kafkajs/src/broker') as {
  prototype: {
    createTopics(): Promise<void>;
    metadata(topics: string[]): Promise<{ topicMetadata: { topic: string }[] }>;
  };
};

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

const commit = (offset: string) =>
  topics.admin.setOffsets({
    groupId: group,
    topic: input,
    partitions: [0, 1].map((partition) => ({ partition, offset })),
  });

/** Twenty records, after which the service ends. */
async function scoreAndEnd(service: INestApplicationContext): Promise<void> {
  await topics.send(input, numbered(20));
  await topics.read(output, 20);
  services = [];
  await service.close();
}

async function isContradicted(service: INestApplicationContext): Promise<void> {
  const stream = service.get<StreamPort>(STREAM_PORT);
  await vi.waitFor(() => expect(stream.process([], async () => [])).rejects.toMatchObject({ code: 'CONFLICT' }), {
    timeout: 20_000,
  });
}

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
  const ids = new TopicIds(topics.kafka);
  const id = (await ids.of([input])).get(input);
  await ids.close();
  expect(rows).toHaveLength(4);
  expect(rows[0]).toEqual({ topic_id: id, state: 'FAILED', error_code: 'BAD_INPUT', labelled: false });
  expect(rows[3]).toEqual({ topic_id: id, state: 'SCORED', error_code: null, labelled: true });
  expect((await service.get(PoolService).stats('tiny')).total).toBe(2);
  expect(await service.get(IngestService).stats('tiny')).toEqual({ pending: 0, scored: 2, failed: 2 });
});

describe('a shared topic', () => {
  it('goes by the task in the value; what no task takes is dead, and can be replayed or dropped', async () => {
    const service = await start();
    await apply(service);
    const other = unique('other');
    await topics.create([other], 1);
    await apply(service, { name: 'second', stream: { input, output: other } });
    const ingest = service.get(IngestService);
    expect(await ingest.ingest('second', [{ id: 's1', text: '很好' }, { text: '' }])).toMatchObject({
      accepted: 1,
      duplicates: 0,
      rejected: [{ index: 1, code: 'BAD_INPUT' }],
    });
    await topics.send(input, [
      { key: 'a', value: '{"id":"t1","task":"tiny","text":"差"}' },
      { key: 'b', value: '不知道给谁' },
      { key: 'c', value: '{"id":"l1","task":"later","text":"好"}', headers: { own: 'x' } },
    ]);
    expect(valueOf((await topics.read(other, 1))[0]!)).toMatchObject({ id: 's1', task: 'second' });
    expect(valueOf((await topics.read(output, 1))[0]!)).toMatchObject({ id: 't1', task: 'tiny' });
    await topics.read(`${input}.dlq`, 2);

    const definition = parseTask(taskFile({ stream: { input, output } }));
    const dead = service.get<DeadLetters>(DEAD_LETTERS);
    const { letters } = await dead.list(definition, 10);
    expect(letters.map(({ code, key }) => `${key} ${code}`).sort()).toEqual(['b BAD_INPUT', 'c TASK_NOT_FOUND']);
    await apply(service, { name: 'later', stream: { input, output } });
    expect(await dead.replay(definition, 10)).toBe(2);
    const scored = await topics.read(output, 2);
    expect(valueOf(scored[1]!)).toMatchObject({ id: 'l1', task: 'later' });
    expect(Object.keys(scored[1]!.headers)).toEqual(['own']);
    // The one that no task takes is back.
    await topics.read(`${input}.dlq`, 3);
    expect(await dead.drop(definition, 10)).toBe(1);
    expect((await dead.list(definition, 10)).letters).toEqual([]);
  });
});

describe('exactly once', () => {
  it('through workers that join and leave, and a swap: in order, and versions never go back', async () => {
    const first = await start();
    await apply(first);
    await topics.send(input, numbered(1500));
    await topics.read(output, 1);
    const second = await start();
    await topics.send(input, numbered(1500, 1500));
    await topics.read(output, 2000);
    services = services.filter((service) => service !== first);
    await first.close();
    await topics.send(input, numbered(500, 3000));
    const outputs = await topics.read(output, 3500);
    expectExactlyOnce(outputs, 3500);
    // The priors were matched again on the way.
    const byPartition = Map.groupBy(outputs, ({ partition }) => partition);
    expect(new Set(outputs.map((message) => Number(valueOf(message)['modelVersion']))).size).toBeGreaterThan(1);
    for (const messages of byPartition.values()) {
      const bySource = Map.groupBy(messages, (message) =>
        String((valueOf(message) as unknown as { source: { partition: number } }).source.partition),
      );
      for (const own of bySource.values()) {
        const versions = own.map((message) => Number(valueOf(message)['modelVersion']));
        expect(versions).toEqual(versions.toSorted((a, b) => a - b));
      }
    }
    const count = await second.get(DataSource).query('SELECT count(*)::int FROM stream_record');
    expect(count).toEqual([{ count: 3500 }]);
  });

  it('through a database whose connections are cut: nothing is dead', async () => {
    const service = await start();
    await apply(service);
    await topics.send(input, numbered(2000));
    for (let cuts = 0; cuts < 3; cuts++) {
      await topics.read(output, 1 + cuts * 300);
      await cutConnections(database.url);
    }
    expectExactlyOnce(await topics.read(output, 2000), 2000);
    expect(await service.get(IngestService).stats('tiny')).toMatchObject({ scored: 2000, failed: 0 });
  });

  it('at least once where that is asked for', async () => {
    const service = await start('all', { kafkaDelivery: 'at-least-once' });
    await apply(service);
    await topics.send(input, numbered(300));
    expectExactlyOnce(await topics.read(output, 300), 300);
    await vi.waitFor(async () => {
      const [offsets] = await topics.admin.fetchOffsets({ groupId: group, topics: [input] });
      const committed = offsets!.partitions.reduce((sum, { offset }) => sum + Math.max(0, Number(offset)), 0);
      expect(committed).toBe(300);
    }, 10_000);
  });
});

it('takes records of whatever early time a producer sets', async () => {
  const service = await start();
  await apply(service);
  const times = ['-8000000000000000', '-62135596800001', '-2'];
  await topics.send(
    input,
    numbered(times.length).map((record, i) => ({ ...record, timestamp: times[i]! })),
  );
  expectExactlyOnce(await topics.read(output, times.length), times.length);
  expect(await service.get(IngestService).stats('tiny')).toMatchObject({ scored: times.length, failed: 0 });
});

it('tells how much waits', async () => {
  const service = await start('api');
  await apply(service);
  await topics.send(input, numbered(20));
  expect(await service.get(IngestService).stats('tiny')).toEqual({ pending: 20, scored: 0, failed: 0 });
});

it('starts beside a topic of somebody else that has no leader', async () => {
  const foreign = unique('foreign');
  const fresh = unique('fresh');
  await topics.create([foreign, fresh], 1);
  const { metadata } = Broker.prototype;
  // As kafkajs has it where a broker is gone that had the only copy.
  vi.spyOn(Broker.prototype, 'metadata').mockImplementation(async function (this: object, names) {
    const answer = await metadata.call(this, names);
    if (answer.topicMetadata.some(({ topic }) => topic === foreign)) throw new Error(`${foreign} has no leader`);
    return answer;
  });
  const service = await start();
  // The topic of its dead letters is made here.
  await apply(service, { stream: { input: fresh, output } });
  await topics.send(fresh, numbered(20));
  expectExactlyOnce(await topics.read(output, 20), 20);
  expect(await service.get(IngestService).stats('tiny')).toMatchObject({ pending: 0, scored: 20 });
});

it('stays in its group while a batch takes longer than the session', async () => {
  const service = await start('all', { kafkaSessionTimeoutMs: 3000 });
  await apply(service);
  const classify = InferenceEngine.prototype.classify;
  let asked = 0;
  vi.spyOn(InferenceEngine.prototype, 'classify').mockImplementation(async function (
    this: InferenceEngine,
    model,
    request,
  ) {
    if (request.priority === 'bulk') {
      asked += request.items.length;
      await new Promise((resolve) => setTimeout(resolve, 9000));
    }
    return classify.call(this, model, request);
  });
  await topics.send(input, numbered(60));
  expectExactlyOnce(await topics.read(output, 60), 60);
  // A member that was put out would have been given the records once more.
  expect(asked).toBe(60);
}, 120_000);

it('finds the record that the model cannot take, and scores the rest', async () => {
  const service = await start();
  await apply(service);
  const classify = InferenceEngine.prototype.classify;
  vi.spyOn(InferenceEngine.prototype, 'classify').mockImplementation(function (this: InferenceEngine, model, request) {
    if (request.items.some(({ text }) => text.startsWith('毒'))) throw new Error('the host died');
    return classify.call(this, model, request);
  });
  const records = numbered(400);
  for (const at of [17, 203, 204]) records[at]!.value = JSON.stringify({ id: `r${at}`, text: `毒${at}`, seq: at });
  await topics.send(input, records);
  expectExactlyOnce(await topics.read(output, 397), 397);
  const dead = await topics.read(`${input}.dlq`, 3);
  expect(dead.map(({ value }) => String(value)).sort()).toEqual([17, 203, 204].map((at) => records[at]!.value).sort());
  expect(dead.map(({ headers }) => String(headers['fewloop-error-code']))).toEqual(Array(3).fill('INTERNAL'));
});

it('goes on where another worker has come to, though far more than a batch was scored here', async () => {
  const service = await start();
  await apply(service);
  const one = unique('one');
  await topics.create([one, `${one}.dlq`], 1);
  await topics.send(one, numbered(1500));
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  let holding = (): void => undefined;
  const reached = new Promise<void>((resolve) => (holding = resolve));
  const classify = InferenceEngine.prototype.classify;
  vi.spyOn(InferenceEngine.prototype, 'classify').mockImplementation(async function (
    this: InferenceEngine,
    model,
    request,
  ) {
    if (request.priority === 'bulk') holding();
    if (request.priority === 'bulk') await held;
    return classify.call(this, model, request);
  });
  await apply(service, { name: 'one', stream: { input: one, output } });
  await reached;
  // The other one: takes the partition's transactional id over, and commits beyond two batches.
  const other = topics.kafka.producer({
    transactionalId: `${group}-${one}-0`,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await other.connect();
  const transaction = await other.transaction();
  const partitions = [{ partition: 0, offset: '1200' }];
  await transaction.sendOffsets({ consumerGroupId: group, topics: [{ topic: one, partitions }] });
  await transaction.commit();
  await other.disconnect();
  release();
  const outputs = await topics.read(output, 300);
  expectExactlyOnce(outputs, 300);
  expect(Math.min(...outputs.map((message) => Number(String(valueOf(message)['id']).slice(1))))).toBe(1200);
});

it.each(['none', 'lz4', 'snappy', 'zstd'] as const)('writes %s', async (kafkaCompression) => {
  const service = await start('all', { kafkaCompression });
  await apply(service);
  await topics.send(input, numbered(50));
  expectExactlyOnce(await topics.read(output, 50), 50);
  expect(await service.get(IngestService).stats('tiny')).toMatchObject({ scored: 50, failed: 0 });
});

it('reads gzip, lz4, snappy and zstd, and writes gzip', async () => {
  const service = await start();
  await apply(service);
  const codecs = ['GZIP', 'LZ4', 'Snappy', 'ZSTD'] as const;
  for (const [i, codec] of codecs.entries()) {
    await topics.send(input, numbered(50, i * 50), kafkajs.CompressionTypes[codec]);
  }
  expectExactlyOnce(await topics.read(output, 200), 200);
  expect(await service.get(IngestService).stats('tiny')).toMatchObject({ scored: 200, failed: 0 });
});

describe('what is known of a place', () => {
  it('does not score what other producers aborted, whatever the order in which they did', async () => {
    const service = await start();
    await apply(service);
    const open = async (name: string) => {
      const producer = topics.kafka.producer({
        transactionalId: unique(name),
        idempotent: true,
        maxInFlightRequests: 1,
      });
      await producer.connect();
      return { producer, transaction: await producer.transaction() };
    };
    const message = (id: string) => ({ partition: 0, key: id, value: JSON.stringify({ id, text: `帖子${id}` }) });
    const [first, second] = await Promise.all([open('first'), open('second')]);
    await first.transaction.send({ topic: input, messages: [message('first')] });
    await second.transaction.send({ topic: input, messages: [message('second')] });
    await second.transaction.abort();
    await first.transaction.abort();
    await Promise.all([first, second].map(({ producer }) => producer.disconnect()));
    await topics.send(input, [message('kept')]);
    const outputs = await topics.read(output, 1);
    expect(outputs.map((one) => valueOf(one)['id'])).toEqual(['kept']);
  });

  it('a topic that is deleted and made again is another one', async () => {
    const service = await start();
    await apply(service);
    await topics.send(input, numbered(20));
    await topics.read(output, 20);
    await topics.admin.deleteTopics({ topics: [input] });
    await topics.create([input], 2);
    await topics.send(input, numbered(20, 20));
    expectExactlyOnce(await topics.read(output, 40), 40);
    const rows = await service
      .get(DataSource)
      .query('SELECT count(DISTINCT topic_id)::int, count(*)::int AS all FROM stream_record');
    expect(rows).toEqual([{ count: 2, all: 40 }]);
  });

  it('a topic that is deleted, and cannot be made here, leaves the others read', async () => {
    const service = await start();
    await apply(service);
    const gone = unique('gone');
    await topics.create([gone, `${gone}.dlq`], 1);
    await apply(service, { name: 'gone', stream: { input: gone, output } });
    await topics.send(gone, numbered(10));
    await topics.read(output, 10);
    await topics.send(input, numbered(10, 10));
    await topics.read(output, 20);
    vi.spyOn(Broker.prototype, 'createTopics').mockRejectedValue(new Error('not authorized'));
    await topics.admin.deleteTopics({ topics: [gone] });
    const ids = new TopicIds(topics.kafka);
    await vi.waitFor(async () => expect(await ids.of([gone])).toEqual(new Map()), 10_000);
    await ids.close();
    // More of them come while the consumer finds out.
    for (let sent = 20; sent < 50; sent += 10) {
      await topics.send(input, numbered(10, sent));
      await topics.read(output, sent + 10);
    }
    expectExactlyOnce(await topics.read(output, 50), 50);
  });

  it('a log that ends before what was committed stops the worker, and nothing is scored twice', async () => {
    const service = await start();
    await apply(service);
    await scoreAndEnd(service);
    // As an unclean election leaves it: the log is shorter than it was.
    await commit('100');
    const again = await start();
    await isContradicted(again);
    const { stream: health } = await again.get(Health).report();
    expect(health).toMatchObject({
      ok: false,
      reason: expect.stringMatching(/ends before 100, .* under its offsets/u),
    });
    expect(await topics.read(output, 20)).toHaveLength(20);
    const [offsets] = await topics.admin.fetchOffsets({ groupId: group, topics: [input] });
    expect(offsets!.partitions.map(({ offset }) => offset)).toEqual(['100', '100']);
  });

  it('goes on at the beginning of a log whose first records have gone for their age', async () => {
    const messages = numbered(40).map((record, i) => ({ ...record, partition: i % 2 }));
    await topics.send(input, messages);
    await commit('0');
    const partitions = [0, 1].map((partition) => ({ partition, offset: '5' }));
    await topics.admin.deleteTopicRecords({ topic: input, partitions });
    const service = await start();
    await apply(service);
    const outputs = await topics.read(output, 30);
    const ids = outputs.map((message) => String(valueOf(message)['id']));
    expect(ids.toSorted()).toEqual(Array.from({ length: 30 }, (_, i) => `r${i + 10}`).toSorted());
  });

  it('a record of another time at a known offset stops the worker', async () => {
    const service = await start();
    await apply(service);
    await scoreAndEnd(service);
    // As if the cluster had been restored from an older copy and had gone on from there.
    await commit('0');
    const again = await start();
    await again.get(DataSource).query(`UPDATE stream_record SET recorded_at = recorded_at - interval '1 second'`);
    await isContradicted(again);
    expect(await topics.read(output, 20)).toHaveLength(20);
    const { stream: health } = await again.get(Health).report();
    expect(health).toMatchObject({ ok: false, reason: expect.stringContaining('has changed under its offsets') });
  });
});

it('lifecycle events leave as CloudEvents', async () => {
  const service = await start();
  const name = unique('eventful');
  await apply(service, { name });
  await topics.send(input, numbered(400));
  // The topic is one for all tests of the run; this task's second version is the one that the texts bring.
  const isSecond = (message: ReadMessage) => {
    const { subject, type, data } = valueOf(message) as unknown as { subject: string; type: string; data: object };
    return subject === name && type === 'fewloop.model.activated' && (data as { version: number }).version === 2;
  };
  const event = (await topics.read('fewloop.events', (messages) => messages.some(isSecond))).find(isSecond)!;
  expect(valueOf(event)).toMatchObject({ specversion: '1.0', source: '/fewloop', datacontenttype: 'application/json' });
  expect(String(event.headers['content-type'])).toBe('application/cloudevents+json; charset=UTF-8');
});
