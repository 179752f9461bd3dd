/** The history of Kafka's records stays within its limits: by age, by number, and never near what may come again. */
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Config } from '../../src/config/config.js';
import type { Environment } from '../../src/config/environment.js';
import { connect } from '../../src/storage/database.js';
import { StreamRecordsRepository } from '../../src/storage/stream-records.repository.js';
import { HistoryPruner } from '../../src/stream/kafka/history-pruner.js';
import { TopicIds } from '../../src/stream/kafka/internals.js';
import { createDatabase } from '../fixtures/database.js';
import { openTopics, unique, type Topics } from '../fixtures/kafka.js';

const COMMITTED = 30_000;
/** What the pruner leaves below the committed offset. */
const MARGIN = 10_000;
const NONE = { historyDays: 0, historyRecords: 0 };

let database: Awaited<ReturnType<typeof createDatabase>>;
let source: DataSource;
let topics: Topics;
let topic: string;
let group: string;
let clusterId: string;
let topicId: string;

beforeEach(async () => {
  database = await createDatabase();
  source = await connect(database.url);
  topics = await openTopics();
  [topic, group] = [unique('texts'), unique('group')];
  await topics.create([topic], 2);
  clusterId = (await topics.admin.describeCluster()).clusterId;
  const ids = new TopicIds(topics.kafka);
  topicId = (await ids.of([topic])).get(topic)!;
  await ids.close();
});
afterEach(async () => {
  await topics.close();
  await source.destroy();
  await database.drop();
});

/** Offsets 0 to 39,999 of partition 0, each a second younger than the one before, the last one as old as given. */
async function fill(id = topicId, youngestDays = 0): Promise<void> {
  await source.query(
    `INSERT INTO stream_record (cluster_id, topic_id, topic, partition, "offset", recorded_at, task, state, scored_at)
     SELECT $1, $2, $3, 0, n, now(), 'tiny', CASE WHEN n % 100 = 0 THEN 'FAILED' ELSE 'SCORED' END,
       now() - make_interval(days => $4, secs => 40000 - n) FROM generate_series(0, 39999) n`,
    [clusterId, id, topic, youngestDays],
  );
}

const commit = (offset: number) =>
  topics.admin.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: String(offset) }] });

const prunerOf = (limits: Partial<Environment>) => {
  const config = Config.load({}).with({ kafkaBrokers: topics.brokers, kafkaGroupId: group, ...NONE, ...limits });
  // What prunes is the repository's; the learning module passes it on.
  return new HistoryPruner(config, new StreamRecordsRepository(source));
};

const oldest = async () => {
  const [row] = await source.query('SELECT min("offset")::int AS oldest, count(*)::int AS count FROM stream_record');
  return row as { oldest: number; count: number };
};

it('old rows go, though none near the committed offset; what was counted stays counted', async () => {
  await fill(topicId, 31);
  await commit(COMMITTED);
  expect(await prunerOf({ historyDays: 30 }).prune()).toBe(COMMITTED - MARGIN);
  expect(await oldest()).toEqual({ oldest: COMMITTED - MARGIN, count: 20_000 });
  expect(await new StreamRecordsRepository(source).countByState('tiny')).toEqual({ SCORED: 39_600, FAILED: 400 });
  // Once more, and a younger limit: nothing is left to do.
  expect(await prunerOf({ historyDays: 30 }).prune()).toBe(0);
});

it('rows beyond the number go whatever their age, and young ones within it stay', async () => {
  await fill();
  await commit(COMMITTED);
  expect(await prunerOf({ historyDays: 30, historyRecords: 25_000 }).prune()).toBe(5_000);
  expect(await oldest()).toEqual({ oldest: 5_000, count: 35_000 });
  // A number below what may come again is not taken at its word.
  expect(await prunerOf({ historyRecords: 1 }).prune()).toBe(15_000);
  expect(await prunerOf({ historyDays: 1 }).prune()).toBe(0);
});

it('nothing goes where the group has committed nothing; of a topic that is no more, what is old', async () => {
  await fill(topicId, 31);
  expect(await prunerOf({ historyDays: 30, historyRecords: 100 }).prune()).toBe(0);
  await fill('another-topic-of-that-name', 31);
  expect(await prunerOf({ historyDays: 32 }).prune()).toBe(0);
  expect(await prunerOf({ historyDays: 30, historyRecords: 100 }).prune()).toBe(40_000);
  expect(await oldest()).toEqual({ oldest: 0, count: 40_000 });
});

it('waits for nobody: a row that is held is passed over', async () => {
  await fill(topicId, 31);
  await commit(COMMITTED);
  const holder = source.createQueryRunner();
  await holder.startTransaction();
  await holder.query('SELECT 1 FROM stream_record WHERE "offset" = 7 FOR UPDATE');
  expect(await prunerOf({ historyDays: 30 }).prune()).toBe(COMMITTED - MARGIN - 1);
  await holder.rollbackTransaction();
  await holder.release();
  expect(await prunerOf({ historyDays: 30 }).prune()).toBe(1);
});
