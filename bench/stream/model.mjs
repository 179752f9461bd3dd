/**
 * The stream with the real model, the limit of the same model, and two peers on the same broker and texts, one after the
 * other, in turns of another order each round:
 *   node bench/stream/model.mjs DATA_FOLDER [--records 200000] [--rounds 1] [--only limit,fewloop,loop,mlserver]
 *     [--python VENV/bin/python] [--model models/base-zh] [--build dist] [--out FILE]
 * DATA_FOLDER holds reviews/online_shopping_10_cats.csv and fewclue/tnews/unlabeled.json. Needs a build; the peers need a
 * Python with requirements.txt.
 */
import { execFile, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';
import { INPUT, openBroker, OUTPUT, root, startService, TOPICS, GROUP, watch } from './service.mjs';
import { readTexts } from './texts.mjs';
import { machineSeconds } from './usage.mjs';

const SYSTEMS = ['limit', 'fewloop', 'loop', 'mlserver'];
const PARTITIONS = 4;
const LOOP = { group: 'loop', output: 'loop.predictions', processes: 2 };
const MLSERVER = { input: 'mlserver.texts', output: 'mlserver.predictions', readyMs: 120_000 };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    records: { type: 'string', default: '200000' },
    rounds: { type: 'string', default: '1' },
    only: { type: 'string', default: SYSTEMS.join() },
    python: { type: 'string', default: 'python3' },
    model: { type: 'string', default: join(root, 'models/base-zh') },
    build: { type: 'string', default: 'dist' },
    out: { type: 'string' },
  },
});
if (positionals.length !== 1) throw new Error('name the folder with the texts: node bench/stream/model.mjs DATA_FOLDER');
const records = Number(values.records);
const wanted = SYSTEMS.filter((name) => values.only.split(',').includes(name));
const task = JSON.parse(readFileSync(join(import.meta.dirname, '../serving/task.json'), 'utf8'));
const texts = readTexts(positionals[0], records);

const run = { limit, fewloop, loop, mlserver };
const rounds = [];
for (let round = 0; round < Number(values.rounds); round++) {
  const turn = round % wanted.length;
  for (const name of [...wanted.slice(turn), ...wanted.slice(0, turn)]) {
    process.stderr.write(`${name}\n`);
    const before = machineSeconds();
    const found = await run[name]().catch((error) => ({ failed: error.message }));
    rounds.push({ system: name, round, ...found });
    if (name === 'limit') rounds.at(-1).machineBusySeconds = Math.round(machineSeconds().busy - before.busy);
    process.stdout.write(`${JSON.stringify({ ...rounds.at(-1), series: undefined })}\n`);
    // What there is so far: a run of all takes long.
    if (values.out) writeFileSync(values.out, `${JSON.stringify({ records, partitions: PARTITIONS, rounds })}\n`);
  }
}

async function limit() {
  return withTexts(async (_, file) => {
    const { stdout } = await promisify(execFile)(process.execPath, [
      join(import.meta.dirname, 'limit.mjs'),
      values.model,
      file,
    ]);
    return JSON.parse(stdout);
  });
}

async function fewloop() {
  return withTexts(async (broker, file) => {
    await broker.produce(INPUT, ['--records', values.records, '--texts', file]);
    const service = await startService({
      broker,
      build: values.build,
      delivery: 'exactly-once',
      hosts: 2,
      baseModel: values.model,
      task: { ...task, stream: { input: INPUT, output: OUTPUT } },
    });
    try {
      const found = await watch(() => broker.committed(GROUP, INPUT), records);
      return { ...found, deadLetters: await broker.written(`${INPUT}.dlq`) };
    } finally {
      await service.close();
    }
  });
}

async function loop() {
  return withTexts(async (broker, file) => {
    await broker.produce(INPUT, ['--records', values.records, '--texts', file]);
    const peers = Array.from({ length: LOOP.processes }, () =>
      peer('loop.py', broker, [broker.brokers, INPUT, LOOP.output, LOOP.group]),
    );
    try {
      return await watch(() => alive(peers, () => broker.committed(LOOP.group, INPUT)), records);
    } finally {
      await Promise.all(peers.map((one) => one.stop()));
    }
  });
}

/** It has no group: it reads what comes after its start. */
async function mlserver() {
  return withTexts(async (broker, file) => {
    const server = peer('mlserver_app.py', broker, [broker.brokers, MLSERVER.input, MLSERVER.output]);
    try {
      const giveUpAt = performance.now() + MLSERVER.readyMs;
      // Until it answers a first one; those before its start it never sees.
      let sent = 0;
      while ((await alive([server], () => broker.written(MLSERVER.output))) === 0) {
        if (performance.now() > giveUpAt) throw new Error(`MLServer answers nothing:\n${server.said()}`);
        await broker.produce(MLSERVER.input, ['--records', '1', '--texts', file, '--mlserver']);
        sent += 1;
        await sleep(1000);
      }
      await sleep(1000);
      const before = await broker.written(MLSERVER.output);
      // It starts while they are sent: the clock of `watch` begins with the first answer.
      const [found] = await Promise.all([
        watch(() => alive([server], async () => (await broker.written(MLSERVER.output)) - before), records),
        broker.produce(MLSERVER.input, ['--records', values.records, '--texts', file, '--mlserver']),
      ]);
      return { ...found, sentBefore: sent };
    } finally {
      await server.stop();
    }
  });
}

async function withTexts(work) {
  const broker = await openBroker([...TOPICS, LOOP.output, MLSERVER.input, MLSERVER.output], PARTITIONS);
  try {
    const file = join(broker.folder, 'texts.txt');
    writeFileSync(file, texts.join('\n'));
    return await work(broker, file);
  } finally {
    await broker.close();
  }
}

async function alive(peers, ask) {
  const dead = peers.find((one) => one.ended());
  if (dead) throw new Error(`it ended:\n${dead.said()}`);
  return ask();
}

function peer(script, broker, args) {
  const child = spawn(values.python, [join(import.meta.dirname, 'peers', script), ...args], {
    env: { ...process.env, BENCH_MODEL: values.model, BENCH_FOLDER: broker.folder },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let tail = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => (tail = (tail + text).slice(-2000)));
  }
  const exit = new Promise((resolve) => child.once('exit', resolve));
  return {
    said: () => tail,
    ended: () => child.exitCode !== null || child.signalCode !== null,
    async stop() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
      await exit;
      clearTimeout(timer);
    },
  };
}
