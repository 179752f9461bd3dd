/**
 * What PostgreSQL takes of the stream: the history (a row for each record) and the pool's candidates, by the service's own
 * statements, from so many writers at once, each with transactions of 4,096 records. Prints a Markdown table.
 *   node bench/scale/database.mjs [--seconds 10] [--out FILE]
 * One processor for PostgreSQL and the writers together: in front of it `taskset -c 0`.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import 'reflect-metadata';
import { PoolService } from '../../dist/src/learning/pool.js';
import { connect } from '../../dist/src/storage/database.js';
import { startEmbeddedPostgres } from '../../dist/src/storage/embedded-postgres.js';
import { CandidatesRepository } from '../../dist/src/storage/candidates.repository.js';
import { ExamplesRepository } from '../../dist/src/storage/examples.repository.js';
import { StreamRecordsRepository } from '../../dist/src/storage/stream-records.repository.js';
import { TasksRepository } from '../../dist/src/storage/tasks.repository.js';
import { Transactions } from '../../dist/src/storage/transactions.js';
import { VersionsRepository } from '../../dist/src/storage/versions.repository.js';
import { parseTask } from '../../dist/src/task/definition.js';
import { itemKey, splitGroup } from '../../dist/src/task/keys.js';
import { cpuSeconds } from '../stream/usage.mjs';

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '10' }, out: { type: 'string' } },
});
const SECONDS = Number(values.seconds);
const RECORDS = 4096;
const CHARACTERS = 50;

const folder = mkdtempSync(join(tmpdir(), 'fewloop-scale-'));
chmodSync(folder, 0o755); // PostgreSQL may run as another user, who walks through it
const server = await startEmbeddedPostgres({ dir: join(folder, 'postgres') });
const source = await connect(server.url);
const transactions = new Transactions(source);
const pool = new PoolService(
  new CandidatesRepository(source),
  new ExamplesRepository(source),
  new TasksRepository(source),
  new VersionsRepository(source),
  transactions,
);
const measured = [];
let made = 0;

/** A pool that is never full: eviction is left out. */
function taskOf(name) {
  const labels = ['positive', 'negative'].map((label, i) => ({ name: label, words: ['好差'[i]] }));
  const pool = { capacity: 100_000_000, auditRate: 0 };
  return parseTask(JSON.stringify({ name, kind: 'single-label', labels, templates: ['{text}很{mask}'], pool }));
}

/** Of whose texts so many become candidates: those that are sent to review. */
function entry(definition, offset, candidates) {
  const number = String(made++);
  const text = Array.from({ length: CHARACTERS - number.length }, (_, i) =>
    String.fromCodePoint(0x4e00 + ((made * 7919 * (i + 3)) % 6000)),
  ).join('') + number;
  const reviewed = Math.random() < candidates;
  const distribution = [
    { label: 'positive', probability: 0.9 },
    { label: 'negative', probability: 0.1 },
  ];
  const scores = { label: 'positive', labels: ['positive'], confidence: 0.9, calibrated: true, margin: 0.8, entropy: 0.3 };
  const prediction = { ...scores, disagreement: null, distribution, members: [], route: reviewed ? 'REVIEW' : 'ACCEPT' };
  return {
    offset: String(offset),
    timestamp: String(Date.now()),
    externalId: `id-${number}`,
    state: 'scored',
    definition,
    item: { itemKey: itemKey({ text }), splitGroup: splitGroup(text), text, textPair: null, choices: null, fields: null },
    prediction: { ...prediction, modelVersion: 1, taskRevision: 1 },
  };
}

/** Writers each have a partition of their own; `tasks`: over how many they are spread. */
async function measure(name, writers, tasks, work) {
  const definitions = Array.from({ length: tasks }, (_, i) => taskOf(`t${i}`));
  await source.query('TRUNCATE stream_record, candidate CASCADE');
  const prepared = definitions.map((definition) => Array.from({ length: RECORDS }, (_, i) => entry(definition, i, 1)));
  const before = { at: performance.now(), postgres: postgresSeconds(), own: process.cpuUsage() };
  const until = before.at + SECONDS * 1000;
  let written = 0;
  const writer = async (partition) => {
    for (let from = 0; performance.now() < until; from += RECORDS) {
      const rows = await work(definitions[partition % tasks], prepared[partition % tasks], partition, from);
      written += rows;
    }
  };
  await Promise.all(Array.from({ length: writers }, (_, i) => writer(i)));
  const seconds = (performance.now() - before.at) / 1000;
  const { user, system } = process.cpuUsage(before.own);
  const micros = (total) => Math.round((total * 1e6) / written);
  const [size] = await source.query(
    `SELECT pg_total_relation_size('stream_record') + pg_total_relation_size('candidate') AS bytes,
      (SELECT count(*) FROM stream_record) + (SELECT count(*) FROM candidate) AS rows`,
  );
  measured.push({
    ...{ rows: name, writers, tasks, rowsPerSecond: Math.round(written / seconds) },
    postgresMicros: micros(postgresSeconds() - before.postgres),
    writerMicros: micros((user + system) / 1e6),
    bytesPerRow: Math.round(Number(size.bytes) / Number(size.rows)),
  });
  process.stdout.write(`| ${Object.values(measured.at(-1)).join(' | ')} |\n`);
}

const postgresSeconds = () => cpuSeconds(process.pid).postgresql;

/** The history alone: nothing of it becomes a candidate. Ids and groups are new each time, as a stream's are. */
async function historyOnly(definition, prepared, partition, from) {
  const records = new StreamRecordsRepository(source);
  const random = randomBytes(32 * prepared.length).toString('hex');
  const rows = prepared.map(({ prediction }, i) => ({
    ...{ offset: String(from + i), recordedAt: new Date().toISOString(), task: definition.name },
    ...{ externalId: `${partition}-${from + i}`, splitGroup: random.slice(64 * i, 64 * i + 64), state: 'SCORED' },
    ...{ label: prediction.label, confidence: prediction.confidence, route: prediction.route, modelVersion: 1 },
    ...{ errorCode: null, errorMessage: null },
  }));
  await transactions.run((tx) => records.upsert(place(partition), rows, tx));
  return rows.length;
}

/** Every record is a candidate, new texts each time. */
async function candidatesOnly(definition) {
  const scored = Array.from({ length: RECORDS / 8 }, (_, i) => entry(definition, i, 1));
  await pool.admit(definition, scored);
  return scored.length;
}

const place = (partition) => ({ clusterId: 'c', topicId: 't', topic: 'texts', partition });

try {
  for (const { name, kind } of [0, 1, 2, 3].map((i) => taskOf(`t${i}`))) {
    await transactions.run((tx) =>
      new TasksRepository(source).saveRevision({ name, kind, revision: 1, definition: {}, definitionDigest: '', appliedBy: '' }, tx),
    );
  }
  process.stdout.write(`${availableParallelism()} processor(s)\n\n`);
  process.stdout.write('| rows | writers | tasks | rows/s | PostgreSQL, CPU µs a row | writer, CPU µs a row | bytes a row, indexes included |\n|---|---|---|---|---|---|---|\n');
  for (const writers of [1, 2, 4, 8]) await measure('history', writers, 1, historyOnly);
  for (const [writers, tasks] of [[1, 1], [4, 1], [4, 4]]) await measure('candidates', writers, tasks, candidatesOnly);
  const machine = { cpu: cpus()[0].model, processors: availableParallelism(), seconds: SECONDS };
  if (values.out) writeFileSync(values.out, `${JSON.stringify({ machine, measured }, null, 2)}\n`);
} finally {
  await source.destroy();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
}
