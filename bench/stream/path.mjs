/**
 * The stream's own speed: records through Kafka, PostgreSQL and back with a model that costs nothing.
 *   node bench/stream/path.mjs [--records 1000000] [--partitions 4] [--build dist] [--delivery exactly-once] [--out FILE] [--profile FOLDER]
 * Needs a build (npm run build). To compare two builds, run it by turns with one's folder and the other's as --build.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { GROUP, INPUT, openBroker, OUTPUT, startService, TOPICS, watch } from './service.mjs';

const { values } = parseArgs({
  options: {
    records: { type: 'string', default: '1000000' },
    partitions: { type: 'string', default: '4' },
    build: { type: 'string', default: 'dist' },
    delivery: { type: 'string', default: 'exactly-once' },
    profile: { type: 'string' },
    out: { type: 'string' },
  },
});
const partitions = Number(values.partitions);
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
const task = {
  name: 'bench',
  kind: 'single-label',
  labels: [
    { name: 'positive', words: ['好'] },
    { name: 'negative', words: ['差'] },
  ],
  templates: ['很{mask}。{text}'],
  maxLength: 64,
  stream: { input: INPUT, output: OUTPUT },
};

const broker = await openBroker(TOPICS, partitions);
await broker.produce(INPUT, ['--records', values.records]);
const service = await startService({
  broker,
  profile: values.profile,
  build: values.build,
  delivery: values.delivery,
  hosts: 1,
  baseModel: 'test/fixtures/tiny-model',
  task,
  free: prediction,
});
const measured = await watch(() => broker.committed(GROUP, INPUT), Number(values.records));
const report = { partitions, delivery: values.delivery, ...measured };
process.stdout.write(`${JSON.stringify({ ...report, series: undefined }, null, 2)}\n`);
if (values.out) writeFileSync(values.out, `${JSON.stringify(report)}\n`);
await service.close();
await broker.close();
