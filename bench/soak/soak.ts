/**
 * The built service for an hour under 70 % of what it can do: a swap every two minutes, a retrain by the real trainer every
 * ten, on the tiny model. Writes what it saw, as it goes, to OUT/samples.jsonl; report.py judges it. Linux alone (/proc).
 *   node bench/soak/soak.ts OUT --python PYTHON_OF_THE_TRAINER [--minutes 60] [--share 0.7] [--swap-s 120] [--retrain-s 600] [--heap-s 0]
 */
import { appendFileSync, chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { availableParallelism, cpus, getPriority, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { query, runEnded, startService } from '../loop/service.ts';
import { arrivals, post, type Call, type Reply } from '../serving/load.ts';
import { root } from '../serving/texts.ts';
import { liveHeap } from './live-heap.ts';
import { machineSeconds, memoryByPart } from './parts.ts';
import { cpuSeconds, tree } from '../serving/tree.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string' },
    minutes: { type: 'string', default: '60' },
    share: { type: 'string', default: '0.7' },
    'swap-s': { type: 'string', default: '120' },
    'retrain-s': { type: 'string', default: '600' },
    // Seconds between full collections, of which each stops the service; 0: none.
    'heap-s': { type: 'string', default: '0' },
  },
});
const [out] = positionals;
if (!out || !values.python) throw new Error('usage: soak.ts OUT --python PYTHON [--minutes 60]');
const seconds = Number(values.minutes) * 60;

const WINDOW_MS = 10_000;
const MEMORY_MS = 5_000;
const CONNECTIONS = 128;
const CAPACITY = { connections: 16, warmSeconds: 10, seconds: 20 };
/** Latencies are counted in cells that are 1 % wide, so that those of any windows can be put together. */
const CELL = Math.log(1.01);
const TASK = {
  name: 'soak',
  kind: 'single-label',
  labels: [
    { name: 'positive', words: ['好'] },
    { name: 'negative', words: ['差'] },
  ],
  templates: ['这是一条{mask}评。{text}', '{text} 总之很{mask}。'],
  maxLength: 32,
  // A version that the guard took back would be a swap of its own.
  learning: { budgetSeconds: 10, trigger: { newLabels: null, schedule: null }, promotion: { guardMinutes: 0 } },
};
const GOODS = ['手机', '衣服', '水果', '酒店', '书', '电脑', '牛奶', '外卖'];

mkdirSync(out, { recursive: true });
const file = join(out, 'samples.jsonl');
writeFileSync(file, '');
const dataDir = mkdtempSync(join(tmpdir(), 'fewloop-soak-'));
chmodSync(dataDir, 0o755); // PostgreSQL may run as another user, who walks through it
const service = await startService(dataDir, {
  FEWLOOP_BASE_MODEL: join(root, 'test/fixtures/tiny-model'),
  FEWLOOP_PYTHON: values.python,
  PYTHONPATH: join(root, 'trainer'),
  FEWLOOP_HOSTS: '1',
  FEWLOOP_LOG_LEVEL: 'warn',
});
let begunMs = performance.now();
const atSeconds = () => Number(((performance.now() - begunMs) / 1000).toFixed(2));

function note(kind: string, what: object): void {
  appendFileSync(file, `${JSON.stringify({ at: atSeconds(), kind, ...what })}\n`);
}

const ask = <T>(text: string, variables: Record<string, unknown> = {}) => query<T>(service.url, text, variables);

async function importExamples(from: number): Promise<void> {
  const examples = GOODS.flatMap((name, i) => [
    { text: `${name}很好，满意，买了${from + i}次`, labels: ['positive'], split: 'TRAIN' },
    { text: `${name}太差了，失望，第${from + i}次`, labels: ['negative'], split: 'TRAIN' },
  ]);
  await ask('mutation ($examples: [ExampleInput!]!) { importExamples(task: "soak", examples: $examples) { added } }', {
    examples,
  });
}

/** A run to its end. */
async function retrain(): Promise<void> {
  const { startRetrain } = await ask<{ startRetrain: { id: string } }>('mutation { startRetrain(task: "soak") { id } }');
  const begun = atSeconds();
  const { state, error } = await runEnded(service.url, startRetrain.id);
  note('run', { begun, state, error });
}

/** To the newest trained version that asks for it, else back to the version before, and forth again. */
async function swap(): Promise<void> {
  const begun = atSeconds();
  const { task } = await ask<{ task: { promotions: { id: string; decision: string | null }[] } }>(
    '{ task(name: "soak") { promotions(first: 1) { id decision } } }',
  );
  const open = task.promotions.find(({ decision }) => decision === null);
  if (open) {
    await ask('mutation ($id: ID!) { approvePromotion(id: $id, override: true, comment: "soak") { decision } }', { id: open.id });
  } else {
    await ask('mutation { rollback(task: "soak", reason: "soak") { version } }');
  }
  const { task: now } = await ask<{ task: { activeVersion: { version: number } } }>(
    '{ task(name: "soak") { activeVersion { version } } }',
  );
  note('swap', { begun, how: open ? 'promotion' : 'rollback', version: now.activeVersion.version });
}

/** No two texts are the same: none is answered from the cache. */
function callOf(number: number): Call {
  const text = `${GOODS[number % GOODS.length]}第${number}个，用了${number % 97}天，${number % 2 ? '很好' : '太差'}`;
  const body = JSON.stringify({
    query: 'query ($inputs: [TextInput!]!) { classify(task: "soak", inputs: $inputs) { label confidence route modelVersion } }',
    variables: { inputs: [{ text }] },
  });
  return { path: '/graphql', body, texts: 1 };
}

const isAnswer = ({ status, body }: Pick<Reply, 'status' | 'body'>) => status === 200 && !body.includes('"errors"');

/** Answers a second of a closed loop, as this machine is now, by the client that loads it afterwards. */
async function capacity(): Promise<number> {
  const { connections, warmSeconds, seconds: measured } = CAPACITY;
  const agent = new Agent({ keepAlive: true });
  const startedMs = performance.now();
  const elapsedMs = () => performance.now() - startedMs;
  const endMs = (warmSeconds + measured) * 1000;
  let [next, counted] = [10_000_000, 0];
  const client = async () => {
    while (elapsedMs() < endMs) {
      const call = callOf(next++);
      const { status, body } = await post(agent, service.url, call);
      if (isAnswer({ status, body }) && elapsedMs() > warmSeconds * 1000) counted += 1;
    }
  };
  await Promise.all(Array.from({ length: connections }, client));
  agent.destroy();
  return counted / measured;
}

class Windows {
  #cells = new Map<number, number>();
  #answered = 0;
  #failed = 0;

  add(reply: Reply): void {
    if (!isAnswer(reply)) {
      this.#failed += 1;
      note('failure', { status: reply.status, body: reply.body.slice(0, 300) });
      return;
    }
    this.#answered += 1;
    const cell = Math.round(Math.log(Math.max(reply.latencyMs, 0.01)) / CELL);
    this.#cells.set(cell, (this.#cells.get(cell) ?? 0) + 1);
  }

  close(): void {
    note('window', { answered: this.#answered, failed: this.#failed, cells: Object.fromEntries(this.#cells), load: loadavg()[0] });
    this.#cells = new Map();
    this.#answered = 0;
    this.#failed = 0;
  }
}

/** Seconds of processor time so far: of all, of the service and all below it, of this driver. */
function processor(): Record<string, number> {
  const { user, system } = process.cpuUsage();
  return { machine: machineSeconds(), service: cpuSeconds(tree(service.pid)), driver: (user + system) / 1e6 };
}

/** Again and again, the first time after as long. */
async function every(periodMs: number, action: () => Promise<void> | void): Promise<void> {
  for (let due = periodMs; due < seconds * 1000; due += periodMs) {
    await sleep(Math.max(0, due - (performance.now() - begunMs)));
    await Promise.resolve(action()).catch((error: unknown) => note('driver', { error: String(error) }));
  }
}

try {
  await ask('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', {
    definition: JSON.stringify(TASK),
  });
  let imported = 0;
  await importExamples(imported++);
  await retrain();
  await swap();
  const textsPerSecond = await capacity();
  const ratePerSecond = Number(values.share) * textsPerSecond;
  begunMs = performance.now();
  note('begin', {
    ...{ textsPerSecond, ratePerSecond, share: Number(values.share), minutes: Number(values.minutes) },
    ...{ cpu: cpus()[0]?.model, cores: availableParallelism(), priority: getPriority(), node: process.version, date: new Date().toISOString() },
  });
  const windows = new Windows();
  const heapMs = Number(values['heap-s']) * 1000;
  const heap = heapMs > 0 ? await liveHeap(service.pid) : undefined;
  const loops = [
    every(WINDOW_MS, () => windows.close()),
    every(MEMORY_MS, () => note('memory', memoryByPart(service.pid))),
    every(WINDOW_MS, () => note('processor', processor())),
    every(Number(values['swap-s']) * 1000, swap),
    ...(heap ? [every(heapMs, async () => note('heap', await heap.ask()))] : []),
    every(Number(values['retrain-s']) * 1000, async () => {
      await importExamples(100 * imported++);
      await retrain();
    }),
  ];
  await arrivals(new URL(service.url).origin, callOf, ratePerSecond, seconds, (reply) => windows.add(reply), CONNECTIONS);
  await Promise.all(loops);
  heap?.close();
  windows.close();
  note('end', {});
} finally {
  await service.stop();
  rmSync(dataDir, { recursive: true, force: true });
}
