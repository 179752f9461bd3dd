/**
 * The stream's own speed: records through Kafka, PostgreSQL and back with a model that costs nothing.
 *   node bench/stream/path.mjs [--records 1000000] [--partitions 4] [--build dist] [--delivery exactly-once] [--out FILE] [--profile FOLDER]
 *     [--before BUILD --rounds 3]
 * Needs a build (npm run build). With --before, the folder of another build, the two run by turns and ratios are reported.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { GROUP, INPUT, openBroker, OUTPUT, startService, TOPICS, watch } from './service.mjs';

const { values } = parseArgs({
  options: {
    records: { type: 'string', default: '1000000' },
    partitions: { type: 'string', default: '4' },
    build: { type: 'string', default: 'dist' },
    before: { type: 'string' },
    rounds: { type: 'string', default: '1' },
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

const runs = [];
for (let round = 0; round < Number(values.rounds); round++) {
  const builds = values.before ? ['before', 'now'] : ['now'];
  for (const build of round % 2 === 0 ? builds : builds.toReversed()) {
    runs.push({ build, round, ...(await once(build === 'now' ? values.build : values.before)) });
    process.stdout.write(`${JSON.stringify({ ...runs.at(-1), series: undefined })}\n`);
    const report = { records: Number(values.records), partitions, delivery: values.delivery, ratios: ratios(), runs };
    if (values.out) writeFileSync(values.out, `${JSON.stringify(report)}\n`);
  }
}
if (values.before) process.stdout.write(`${JSON.stringify(ratios())}\n`);

async function once(build) {
  const broker = await openBroker(TOPICS, partitions);
  try {
    await broker.produce(INPUT, ['--records', values.records]);
    const service = await startService({
      broker,
      profile: values.profile,
      build,
      delivery: values.delivery,
      hosts: 1,
      baseModel: 'test/fixtures/tiny-model',
      task,
      free: prediction,
    });
    try {
      return await watch(() => broker.committed(GROUP, INPUT), Number(values.records));
    } finally {
      await service.close();
    }
  } finally {
    await broker.close();
  }
}

/** Now by before, of the medians; null where one of them has not run. */
function ratios() {
  const of = (take) => {
    const [now, before] = ['now', 'before'].map((build) => median(runs.filter((run) => run.build === build).map(take)));
    return now && before ? Number((now / before).toFixed(2)) : null;
  };
  const cpu = (run) => Object.values(run.cpuMicrosecondsPerRecord).reduce((sum, value) => sum + value, 0);
  return {
    recordsPerSecond: of((run) => run.recordsPerSecond),
    cpu: of(cpu),
    ...Object.fromEntries(
      ['worker', 'postgresql', 'broker'].map((part) => [part, of((run) => run.cpuMicrosecondsPerRecord[part])]),
    ),
  };
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return (sorted[Math.ceil(middle) - 1] + sorted[Math.floor(middle)]) / 2;
}
