/**
 * The stream's own speed: records through Kafka, PostgreSQL and back with a model that costs nothing.
 *   node bench/stream/path.mjs [--records 200000] [--partitions 4] [--out docs/results/stream-path.json]
 * Needs a build (npm run build). Starts a broker of its own and the service with its embedded PostgreSQL in this process.
 */
import 'reflect-metadata';
import { writeFileSync, chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import kafkajs from 'kafkajs';
import { createApp } from '../../dist/src/app.module.js';
import { Config } from '../../dist/src/config/config.js';
import { InferenceEngine } from '../../dist/src/inference/engine.js';
import { TaskService } from '../../dist/src/learning/task-service.js';
import { freePort, startBroker } from '../../scripts/kafka/broker.mjs';

const { values } = parseArgs({
  options: {
    records: { type: 'string', default: '200000' },
    partitions: { type: 'string', default: '4' },
    delivery: { type: 'string', default: 'exactly-once' },
    out: { type: 'string' },
  },
});
const records = Number(values.records);
const partitions = Number(values.partitions);
const [input, output, group] = ['bench.texts', 'bench.predictions', 'bench'];

const prediction = {
  label: 'positive',
  labels: ['positive'],
  confidence: 0.97,
  calibrated: true,
  margin: 0.94,
  entropy: 0.13,
  disagreement: { voters: 2, dissenting: 0, unanimous: true, voteEntropy: 0, jensenShannon: 0.001 },
  distribution: [
    { label: 'positive', probability: 0.97 },
    { label: 'negative', probability: 0.03 },
  ],
  members: [],
  route: 'ACCEPT',
  modelVersion: 1,
  taskRevision: 1,
};

const folder = mkdtempSync(join(tmpdir(), 'fewloop-bench-'));
chmodSync(folder, 0o755);
const broker = await startBroker({ dir: join(folder, 'kafka'), port: await freePort(), controllerPort: await freePort() });
const kafka = new kafkajs.Kafka({ brokers: [broker.brokers], logLevel: kafkajs.logLevel.NOTHING });
const admin = kafka.admin();
await admin.connect();
const topics = [input, output, `${input}.dlq`].map((topic) => ({ topic, numPartitions: partitions }));
await admin.createTopics({ topics, waitForLeaders: false });
await sleep(1000);
await produce();

const classify = InferenceEngine.prototype.classify;
const app = await createApp(
  Config.load({
    PORT: '0',
    FEWLOOP_DATA_DIR: join(folder, 'data'),
    FEWLOOP_BASE_MODEL: 'test/fixtures/tiny-model',
    FEWLOOP_HOSTS: '1',
    FEWLOOP_LOG_LEVEL: 'warn',
    KAFKA_BROKERS: broker.brokers,
    KAFKA_GROUP_ID: group,
    KAFKA_DELIVERY: values.delivery,
  }),
);
await app.init();
// The golden texts of the zero-shot version need the real one.
InferenceEngine.prototype.classify = async function (model, request) {
  if (request.priority !== 'bulk') return classify.call(this, model, request);
  return request.items.map(() => ({ ok: true, prediction, embedding: null, itemKey: '' }));
};
await app.get(TaskService).apply(
  JSON.stringify({
    name: 'bench',
    kind: 'single-label',
    labels: [
      { name: 'positive', words: ['好'] },
      { name: 'negative', words: ['差'] },
    ],
    templates: ['很{mask}。{text}'],
    maxLength: 64,
    stream: { input, output },
  }),
  'bench',
);

let first = null;
let mostRss = 0;
let previous = { done: 0, at: performance.now() };
const series = [];
for (;;) {
  const done = await committed();
  const at = performance.now();
  mostRss = Math.max(mostRss, process.memoryUsage.rss());
  if (first === null && done > 0) first = { at, done, cpu: process.cpuUsage() };
  if (first) series.push([Math.round(at - first.at), done, Math.round(process.memoryUsage.rss() / 2 ** 20)]);
  if (done >= records) break;
  if (at - previous.at > 5000) {
    process.stderr.write(`${done} ${Math.round(((done - previous.done) / (at - previous.at)) * 1000)}/s\n`);
    previous = { done, at };
  }
  await sleep(100);
}
const seconds = (performance.now() - first.at) / 1000;
const cpu = process.cpuUsage(first.cpu);
const report = {
  records,
  partitions,
  delivery: values.delivery,
  cores: cpus().length,
  recordsPerSecond: Math.round((records - first.done) / seconds),
  seconds: Number(seconds.toFixed(1)),
  serviceCpuSeconds: Number(((cpu.user + cpu.system) / 1e6).toFixed(1)),
  mostRssMiB: Math.round(mostRss / 2 ** 20),
  rssMiBAtQuarters: [0.25, 0.5, 0.75, 1].map((share) => series.find(([, done]) => done >= share * records)?.[2]),
};
process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
if (values.out) writeFileSync(values.out, `${JSON.stringify(report, null, 2)}\n`);
await app.close();
await admin.disconnect();
await broker.stop('SIGKILL');
rmSync(folder, { recursive: true, force: true });

async function produce() {
  const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();
  const text = '物流很快，包装完好，下次还会再来买，客服态度也不错，就是价格稍微贵了一点点，总体满意';
  for (let i = 0; i < records; i += 1000) {
    const messages = Array.from({ length: Math.min(1000, records - i) }, (_, j) => {
      const id = `r${i + j}`;
      return { key: `k${(i + j) % 5000}`, value: JSON.stringify({ id, text: `${text}${i + j}`, shop: (i + j) % 97 }) };
    });
    await producer.send({ topic: input, messages, compression: kafkajs.CompressionTypes.GZIP });
  }
  await producer.disconnect();
}

async function committed() {
  const [offsets] = await admin.fetchOffsets({ groupId: group, topics: [input] });
  return offsets.partitions.reduce((sum, { offset }) => sum + Math.max(0, Number(offset)), 0);
}
