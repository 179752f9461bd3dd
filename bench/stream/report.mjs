/**
 * docs/results/stream.md from the raw results beside it:
 *   node bench/stream/report.mjs [--on "1 December 2026, nothing else on the machine"] [--python VENV/bin/python]
 * Reads docs/results/stream-path.json (path.mjs --out) and stream-model.json (model.mjs --out), whichever are there; with
 * --python, one that has matplotlib, draws docs/results/stream.png too.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { on: { type: 'string', default: '' }, python: { type: 'string' } } });
const folder = join(import.meta.dirname, '../../docs/results');
const PARTS = ['worker', 'hosts', 'postgresql', 'broker', 'peer'];
const NAMES = {
  fewloop: 'Fewloop',
  loop: 'Python loop (confluent-kafka, 2 processes)',
  mlserver: "MLServer's Kafka server",
};
const LABELS = { recordsPerSecond: 'records a second', cpu: 'processor time a record', worker: 'of the worker', postgresql: 'of PostgreSQL', broker: 'of the broker' };
const GUARANTEES = [
  [
    'Fewloop',
    'exactly once: outputs, dead letters and offsets are one transaction; order kept per partition; history and candidates in PostgreSQL; a record that fails stands alone in the dead-letter topic',
  ],
  [
    'Python loop',
    'at least once: offsets are committed after the outputs are acknowledged, a crash between the two writes a batch twice; order kept per partition; one bad record ends the process, and again at each start',
  ],
  [
    'MLServer 1.7.1',
    'none: it has no consumer group and commits no offset, so that what arrives while it is down and what is at work when it ends is lost; every message is a task of its own, answered in any order; a record that fails is logged and gone; what waits is held in memory without a bound',
  ],
];

const path = raw('stream-path.json');
const model = raw('stream-model.json');
const lines = ['# The stream: speed and memory', '', `\`bench/stream\`${values.on ? `, ${values.on}` : ''}; ${cpus().length} cores of ${cpus()[0].model.trim()}. Everything runs on them together: the broker, PostgreSQL, the service.`];
if (path) lines.push(...pathPart(path));
if (model) lines.push(...modelPart(model));
if (values.python) {
  execFileSync(values.python, [join(import.meta.dirname, 'plot.py'), folder], { stdio: 'inherit' });
}
if (existsSync(join(folder, 'stream.png'))) lines.push('', '![Memory and throughput](stream.png)');
writeFileSync(join(folder, 'stream.md'), `${lines.join('\n')}\n`);

function pathPart({ records, partitions, delivery, ratios, runs }) {
  const rows = runs.map(({ build, measured, recordsPerSecond, cpuMicrosecondsPerRecord: cpu, seconds, machineBusySeconds, memoryMib }) => {
    const all = sum(Object.values(cpu));
    const busy = `${Math.round((100 * machineBusySeconds) / (seconds * cpus().length))} %`;
    const others = `${Math.round((100 * (machineBusySeconds - (all * measured) / 1e6)) / (seconds * cpus().length))} %`;
    const memory = memoryMib.map(({ worker }) => worker).join(', ');
    return [build, recordsPerSecond.toLocaleString('en'), all.toFixed(0), ...PARTS.slice(0, 4).map((part) => (cpu[part] ?? 0).toFixed(0)), busy, others, memory];
  });
  const compared = Object.values(ratios).some((ratio) => ratio !== null)
    ? ['', `Now by before, medians: ${Object.entries(ratios).map(([name, ratio]) => `${LABELS[name]} ${ratio}`).join(', ')}.`]
    : [];
  return [
    '',
    '## The path itself',
    '',
    `\`path.mjs\`: ${records.toLocaleString('en')} records of about 50 characters, gzip, ${partitions} partitions, ${delivery}, with a model that costs nothing: Kafka, PostgreSQL and the code between. A tenth of the texts become candidates.`,
    '',
    table(['build', 'records/s', 'CPU µs a record', 'worker', 'host', 'PostgreSQL', 'broker', 'machine busy', 'by other work', "worker's memory at ¼, ½, ¾, all (MiB)"], rows),
    ...compared,
  ];
}

function modelPart({ records, partitions, rounds }) {
  const limits = rounds.filter(({ system, failed }) => system === 'limit' && !failed);
  const best = limits.toSorted((a, b) => b.textsPerSecond - a.textsPerSecond)[0];
  const failed = rounds.filter((one) => one.failed);
  const rows = rounds
    .filter((one) => one.system !== 'limit' && !one.failed)
    .map(({ system, round, measured, recordsPerSecond, cpuSeconds, memoryMib }) => {
      // Of the same round, where there is one: the machine changes with the hours.
      const limit = limits.find((one) => one.round === round) ?? best;
      const all = sum(Object.values(cpuSeconds));
      // What the model alone needs, of what all of it took; and without the broker's.
      const needed = limit ? (limit.cpuMicrosecondsPerText * measured) / 1e6 : NaN;
      return [
        NAMES[system],
        recordsPerSecond.toLocaleString('en'),
        limit ? share(recordsPerSecond / limit.textsPerSecond) : '',
        limit ? share(needed / all) : '',
        limit ? share(needed / (all - (cpuSeconds.broker ?? 0))) : '',
        ...PARTS.map((part) => (cpuSeconds[part] ?? 0).toFixed(0)),
        Math.max(...memoryMib.map((parts) => sum(Object.values(parts)))).toLocaleString('en'),
      ];
    });
  return [
    '',
    '## With the model',
    '',
    `\`model.mjs\`: ${records.toLocaleString('en')} shop reviews and news titles, all distinct, gzip, ${partitions} partitions, \`models/base-zh\` on one template (two hosts of one thread). The limit is onnxruntime alone, two sessions of one thread, on the same texts tokenized before, sorted by length${best ? `, ${best.batchSize} a batch: ${limits.map(({ textsPerSecond }) => textsPerSecond).join(', ')} texts a second, ${(best.cpuMicrosecondsPerText / 1000).toFixed(2)} ms of processor time each` : ''}.`,
    '',
    table(['', 'records/s', 'of the limit', "model's share of CPU", 'without the broker', 'worker CPU s', 'hosts', 'PostgreSQL', 'broker', 'peer', 'most memory (MiB, all parts)'], rows),
    ...failed.map(({ system, failed: reason }) => `\n${NAMES[system] ?? system} did not run: ${reason}`),
    '',
    'What each guarantees:',
    '',
    table(['', ''], GUARANTEES),
  ];
}

function raw(name) {
  const file = join(folder, name);
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : null;
}

function table([...head], rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

function share(number) {
  return number.toFixed(2);
}
