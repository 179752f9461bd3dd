/**
 * Thirty tasks on one machine: ten with an ensemble of their own, twenty that answer zero-shot on the base model's graph,
 * under mixed traffic, with room for all and then with room for a few.
 *   node bench/many-tasks/run.ts DATA_FOLDER BUNDLE [--ensembles 10] [--zero-shot 20] [--rate 4] [--seconds 120] [--memory-mb ,3000]
 * BUNDLE: a trained version of examples/reviews/quick.yaml (bundles/review-sentiment/2 of a data folder), which stands for
 * each task's own. Two of three requests are for zero-shot tasks; which one goes by Zipf's law. Prints JSON, a row for each
 * limit of memory: latencies, models that were opened and given back, seconds that opening took, memory.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { parse, stringify } from 'yaml';
import { query, startService, type Service } from '../loop/service.ts';
import { openLoop, quantile, type Call, type Reply } from '../serving/load.ts';
import { readTexts, root } from '../serving/texts.ts';
import { pssMib, tree } from '../serving/tree.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ensembles: { type: 'string', default: '10' },
    'zero-shot': { type: 'string', default: '20' },
    rate: { type: 'string', default: '4' },
    seconds: { type: 'string', default: '120' },
    // Of FEWLOOP_MODEL_MEMORY_MB; nothing: as it comes.
    'memory-mb': { type: 'string', default: ',3000' },
  },
});
const [data, bundle] = positionals;
if (!data || !bundle) throw new Error('usage: run.ts DATA_FOLDER BUNDLE');
const seconds = Number(values.seconds);
const MEMORY_EVERY_MS = 5000;
/** Of the requests; the others are for ensembles, which compute five times as much. */
const ZERO_SHOT_SHARE = 2 / 3;

const file = (name: string) => readFileSync(join(root, 'examples/reviews', name), 'utf8');
const quick = parse(file('quick.yaml')) as Record<string, unknown>;
const examples = file('labelled.jsonl').trim().split('\n').map((line) => JSON.parse(line) as { text: string; labels: string[] });
const names = (kind: string, count: number) => Array.from({ length: count }, (_, i) => `${kind}-${i + 1}`);
const ensembles = names('ensemble', Number(values.ensembles));
const zeroShot = names('zero-shot', Number(values['zero-shot']));

const dataDir = mkdtempSync(join(tmpdir(), 'fewloop-many-'));
chmodSync(dataDir, 0o755); // PostgreSQL may run as another user, who walks through it
const trainer = join(dataDir, 'trainer');
writeFileSync(trainer, `#!/bin/sh\nexec '${process.execPath}' '${join(import.meta.dirname, 'copy-bundle.mjs')}' '${resolve(bundle)}' "$@"\n`);
chmodSync(trainer, 0o755);

const start = (memoryMb: string) =>
  startService(dataDir, {
    FEWLOOP_PYTHON: trainer,
    FEWLOOP_CACHE_MB: '0',
    FEWLOOP_WARM_MINUTES: '0',
    FEWLOOP_LOG_LEVEL: 'info',
    ...(memoryMb ? { FEWLOOP_MODEL_MEMORY_MB: memoryMb } : {}),
  });

async function makeTasks(service: Service): Promise<void> {
  const ask = <T>(text: string, variables: Record<string, unknown> = {}) => query<T>(service.url, text, variables);
  for (const name of [...zeroShot, ...ensembles]) {
    const definition = stringify({ ...quick, name });
    await ask('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', { definition });
  }
  for (const task of ensembles) {
    await ask('mutation ($task: String!, $examples: [ExampleInput!]!) { importExamples(task: $task, examples: $examples) { added } }', {
      task,
      examples,
    });
    await ask('mutation ($task: String!) { startRetrain(task: $task) { id } }', { task });
    await promoted(task, ask);
    process.stderr.write(`${task} answers with its ensemble\n`);
  }
}

async function promoted(task: string, ask: <T>(text: string, variables?: Record<string, unknown>) => Promise<T>): Promise<void> {
  for (;;) {
    await sleep(500);
    const found = await ask<{ task: { promotions: { id: string; decision: string | null }[]; runs: { error: string | null }[] } }>(
      'query ($task: String!) { task(name: $task) { promotions(first: 1) { id decision } runs(first: 1) { error } } }',
      { task },
    );
    const failed = found.task.runs[0]?.error;
    if (failed) throw new Error(failed);
    const open = found.task.promotions.find(({ decision }) => decision === null);
    if (!open) continue;
    await ask('mutation ($id: ID!) { approvePromotion(id: $id, override: true, comment: "many tasks") { decision } }', { id: open.id });
    return;
  }
}

/** Requests for some of the tasks by Zipf's law; always the same ones. */
function calls(tasks: string[]): Call[] {
  const weights = tasks.map((_, rank) => 1 / (rank + 1));
  const sum = weights.reduce((a, b) => a + b);
  let state = 7;
  const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
  const drawn = () => {
    let left = random() * sum;
    return tasks.find((_, rank) => (left -= weights[rank]!) <= 0) ?? tasks.at(-1)!;
  };
  return readTexts(data!, 4000).mixed.map((text) => ({
    path: '/graphql',
    body: JSON.stringify({
      query: 'query ($task: String!, $inputs: [TextInput!]!) { classify(task: $task, inputs: $inputs) { label } }',
      variables: { task: drawn(), inputs: [{ text }] },
    }),
    texts: 1,
  }));
}

const rounded = (value: number) => Number(value.toFixed(1));
function figures(replies: Reply[]) {
  const isAnswer = ({ status, body }: Reply) => status === 200 && !body.includes('"errors"');
  const latencies = replies.filter(isAnswer).map(({ latencyMs }) => latencyMs);
  const overloaded = replies.filter(({ body }) => body.includes('OVERLOADED')).length;
  const failed = replies.filter((reply) => !isAnswer(reply)).length - overloaded;
  const [p50, p99] = [0.5, 0.99].map((share) => rounded(quantile(latencies, share)));
  return { requests: replies.length, p50, p99, slowest: rounded(Math.max(...latencies)), overloaded, failed };
}

/** Of the service's log, from a line on: models that were given back, and those that answer (again). */
function logged(from: number): { lines: number; rests: number; opened: number } {
  const lines = readFileSync(join(dataDir, 'service.log'), 'utf8').split('\n');
  const count = (pattern: RegExp) => lines.slice(from).filter((line) => pattern.test(line)).length;
  return { lines: lines.length, rests: count(/version \d+ rests/u), opened: count(/version \d+ answers/u) };
}

async function swapSeconds(service: Service): Promise<{ count: number; sum: number }> {
  const text = await (await fetch(new URL('/metrics', service.url))).text();
  const value = (name: string) => Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'mu').exec(text)?.[1] ?? 0);
  return { count: value('fewloop_swap_seconds_count'), sum: value('fewloop_swap_seconds_sum') };
}

/** Seconds until the models that there is room for are open. */
async function ready(service: Service): Promise<number> {
  const startedMs = performance.now();
  while (!(await fetch(new URL('/health/ready', service.url))).ok) await sleep(200);
  return (performance.now() - startedMs) / 1000;
}

async function measured(service: Service, memoryMb: string) {
  const secondsToReady = rounded(await ready(service));
  const { lines } = logged(0);
  const before = await swapSeconds(service);
  let [peak, stop] = [0, false];
  const watching = (async () => {
    for (; !stop; await sleep(MEMORY_EVERY_MS)) peak = Math.max(peak, pssMib(tree(service.pid)));
  })();
  const rate = Number(values.rate);
  const load = (tasks: string[], share: number) => openLoop(service.url, calls(tasks), share * rate, seconds);
  const [single, five] = await Promise.all([load(zeroShot, ZERO_SHOT_SHARE), load(ensembles, 1 - ZERO_SHOT_SHARE)]);
  stop = true;
  await watching;
  const after = await swapSeconds(service);
  const { rests, opened } = logged(lines);
  const opens = after.count - before.count;
  return {
    memoryMb: memoryMb || `half of ${Math.round(totalmem() / 2 ** 20)}`,
    secondsToReady,
    openAtFirst: before.count,
    meanSecondsToOpenAtFirst: before.count > 0 ? rounded(before.sum / before.count) : null,
    zeroShot: figures(single),
    ensembles: figures(five),
    opened,
    meanSecondsToOpen: opens > 0 ? rounded((after.sum - before.sum) / opens) : null,
    gaveBack: rests,
    peakPssMib: Math.round(peak),
  };
}

let service = await start('');
try {
  await makeTasks(service);
  await service.stop();
  const rows = [];
  for (const memoryMb of values['memory-mb'].split(',')) {
    service = await start(memoryMb);
    const row = await measured(service, memoryMb);
    process.stderr.write(`${JSON.stringify(row)}\n`);
    rows.push(row);
    await service.stop();
  }
  const { length: cores } = cpus();
  console.log(JSON.stringify({ at: new Date().toISOString(), cpu: cpus()[0]?.model, cores, load: loadavg()[0], rate: Number(values.rate), seconds, ensembles: ensembles.length, zeroShot: zeroShot.length, rows }, null, 1));
} finally {
  await service.stop();
  rmSync(dataDir, { recursive: true, force: true });
}
