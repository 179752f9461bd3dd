/** A broker of its own and the service (embedded PostgreSQL, role all), in a folder that goes with them. */
import { fork } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs from 'kafkajs';
import { freePort, startBroker } from '../../scripts/kafka/broker.mjs';
import { cpuSeconds, difference, machineSeconds, memoryMib } from './usage.mjs';

export const root = resolve(import.meta.dirname, '../..');
export const [INPUT, OUTPUT, GROUP] = ['bench.texts', 'bench.predictions', 'bench'];
export const TOPICS = [INPUT, OUTPUT, `${INPUT}.dlq`];

/** `topics` with so many partitions each. */
export async function openBroker(topics, partitions) {
  const folder = mkdtempSync(join(tmpdir(), 'fewloop-bench-'));
  // PostgreSQL, which may run as another user, walks through it.
  chmodSync(folder, 0o755);
  const ports = { port: await freePort(), controllerPort: await freePort() };
  const broker = await startBroker({ dir: join(folder, 'kafka'), ...ports });
  const { brokers } = broker;
  const kafka = new kafkajs.Kafka({ brokers: [brokers], logLevel: kafkajs.logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({
    topics: topics.map((topic) => ({ topic, numPartitions: partitions })),
    waitForLeaders: false,
  });
  await sleep(1000);
  return {
    brokers,
    folder,
    /** `options`: those of produce.mjs. In a process of its own: what that holds is not the service's memory. */
    async produce(topic, options) {
      const child = fork(join(import.meta.dirname, 'produce.mjs'), [brokers, topic, ...options]);
      const code = await new Promise((ended) => child.once('exit', ended));
      if (code !== 0) throw new Error('the texts were not produced');
    },
    /** Records whose offsets the group has committed; 0 while its coordinator is still loading. */
    async committed(groupId, topic) {
      const [offsets] = await admin.fetchOffsets({ groupId, topics: [topic] }).catch((error) => {
        if (error.retriable) return [{ partitions: [] }];
        throw error;
      });
      return offsets.partitions.reduce((sum, { offset }) => sum + Math.max(0, Number(offset)), 0);
    },
    /** Records in a topic, the markers of transactions among them. */
    async written(topic) {
      const ends = await admin.fetchTopicOffsets(topic);
      return ends.reduce((sum, { high }) => sum + Number(high), 0);
    },
    async close() {
      await admin.disconnect();
      await broker.stop('SIGKILL');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/**
 * The service in a process of its own, the task applied. `build`: the folder of a build of it; `free`: a prediction that
 * every text gets, without a model; `profile`: a folder for a profile of its processor time.
 */
export async function startService({ broker, profile, ...options }) {
  const settings = JSON.stringify({ group: GROUP, ...options, brokers: broker.brokers, dataDir: join(broker.folder, 'data') });
  const execArgv = profile ? ['--cpu-prof', `--cpu-prof-dir=${profile}`] : [];
  const child = fork(join(import.meta.dirname, 'serve.mjs'), [settings], { execArgv });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  await new Promise((ready, failed) => {
    child.once('message', ready);
    void ended.then((code) => failed(new Error(`the service ended at its start (${code})`)));
  });
  return {
    async close() {
      if (child.connected) child.send('close');
      await ended;
    },
  };
}

/**
 * Waits until all records are committed. The clock and the processor times start with the first committed ones.
 * `committed`: how many are.
 */
export async function watch(committed, records) {
  const { pid } = process;
  let first = null;
  let said = performance.now();
  const series = [];
  for (;;) {
    const done = await committed();
    const at = performance.now();
    if (first === null && done > 0) first = { at, done, cpu: cpuSeconds(pid), machine: machineSeconds() };
    const seconds = first ? (at - first.at) / 1000 : 0;
    // Asking for memory costs some milliseconds of it.
    if (first && (series.length === 0 || seconds - series.at(-1).seconds > 5 || done >= records)) {
      series.push({ seconds, records: done, mib: memoryMib(pid) });
    }
    if (done >= records) break;
    if (at - said > 10_000) {
      process.stderr.write(`${done} of ${records}\n`);
      said = at;
    }
    await sleep(100);
  }
  const { seconds } = series.at(-1);
  const cpu = difference(cpuSeconds(pid), first.cpu);
  const machine = machineSeconds();
  return {
    records,
    measured: records - first.done,
    recordsPerSecond: Math.round((records - first.done) / seconds),
    seconds: Number(seconds.toFixed(1)),
    cpuSeconds: cpu,
    cpuMicrosecondsPerRecord: Object.fromEntries(
      Object.entries(cpu).map(([part, value]) => [part, Number(((value * 1e6) / (records - first.done)).toFixed(1))]),
    ),
    // Of all cores: more than the sum above means that other work was beside it.
    machineBusySeconds: Number((machine.busy - first.machine.busy).toFixed(1)),
    memoryMib: [0.25, 0.5, 0.75, 1].map((share) => series.find((one) => one.records >= share * records).mib),
    series: thinned(series),
  };
}

function thinned(series) {
  const step = Math.ceil(series.length / 200);
  return series.filter((_, i) => i % step === 0 || i === series.length - 1);
}
