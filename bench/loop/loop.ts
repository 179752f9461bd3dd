/**
 * The loop on real reviews: streams 10,000 texts into a running service, starts with 16 labels, then five rounds of 20
 * answers by the file's own labels, a retrain and a promotion after each. One folder a configuration holds the
 * service's data and `state.json`; run again, it goes on where it stopped.
 *
 *   node bench/loop/loop.ts --reviews FILE --out DIR [--target sentiment] [--strategies VOTE_ENTROPY,RANDOM] [--seeds 0,1] [--no-load]
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { loopData, type LoopData, type Row, type Target } from './data.ts';
import { promotionUnderLoad, type LoadReport } from './load.ts';
import { chunks, query, startService } from './service.ts';

const TASK_FILES = { sentiment: 'examples/reviews/task.yaml', category: 'examples/shop-categories/task.yaml' };
const ROUNDS = 5;
const ANSWERS = 20;
/** Candidates that the active version has scored anew before a strategy is asked. */
const FRESH = 600;

export interface Point {
  labels: number;
  version: number;
  accuracy: number;
  /** One character a held-out row, in order: 1 right, 0 wrong; for paired differences. */
  hits: string;
  evaluateSeconds: number;
  trainSeconds: number | null;
  verdict: string | null;
}

interface State {
  streamSeconds: number | null;
  /** Of each round that asked a strategy: how long it waited for fresh scores. */
  refreshSeconds: number[];
  /** What has been labelled so far, in order. */
  labelled: Row[];
  points: Point[];
  load: LoadReport | null;
}

const { values: options } = parseArgs({
  allowNegative: true,
  options: {
    reviews: { type: 'string' },
    out: { type: 'string' },
    target: { type: 'string', default: 'sentiment' },
    strategies: { type: 'string', default: 'VOTE_ENTROPY,RANDOM' },
    seeds: { type: 'string', default: '0,1' },
    load: { type: 'boolean', default: true },
  },
});
if (!options.reviews || !existsSync(options.reviews)) {
  process.stderr.write('skipped: name the shop reviews with --reviews FILE (online_shopping_10_cats.csv)\n');
  process.exit(0);
}
const target = options.target as Target;
const out = resolve(options.out ?? '.work/loop');
const say = (message: string) => process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${message}\n`);

for (const seed of options.seeds.split(',').map(Number)) {
  // Every strategy starts where the labels at the start end: streamed once, trained once.
  const start = await configuration(seed, 'START', 2);
  for (const strategy of options.strategies.split(',')) {
    forkFrom(start, join(out, nameOf(seed, strategy)));
    await configuration(seed, strategy, ROUNDS + 2);
  }
}

function nameOf(seed: number, strategy: string): string {
  return `${target}-${strategy.toLowerCase()}-${seed}`;
}

function forkFrom(start: string, folder: string): void {
  if (existsSync(join(folder, 'state.json'))) return;
  rmSync(`${folder}.partial`, { recursive: true, force: true });
  // PostgreSQL wants its owner and its permissions kept.
  execFileSync('cp', ['-a', start, `${folder}.partial`]);
  rmSync(folder, { recursive: true, force: true });
  renameSync(`${folder}.partial`, folder);
}

/** Goes on until there are `wanted` points. Answers its folder. */
async function configuration(seed: number, strategy: string, wanted: number): Promise<string> {
  const name = nameOf(seed, strategy);
  const folder = join(out, name);
  mkdirSync(folder, { recursive: true });
  const stateFile = join(folder, 'state.json');
  const state: State = existsSync(stateFile)
    ? (JSON.parse(readFileSync(stateFile, 'utf8')) as State)
    : { streamSeconds: null, refreshSeconds: [], labelled: [], points: [], load: null };
  const save = () => {
    writeFileSync(`${stateFile}.partial`, JSON.stringify(state, null, 1));
    renameSync(`${stateFile}.partial`, stateFile);
  };
  if (state.points.length >= wanted) {
    say(`${name}: done before`);
    return folder;
  }
  const data = loopData(options.reviews as string, target, seed);
  writeFileSync(join(folder, 'peers-data.json'), JSON.stringify({ heldOut: data.heldOut }));
  const service = await startService(folder, {});
  try {
    const definition = readFileSync(TASK_FILES[target], 'utf8');
    const { applyTask } = await query<{ applyTask: { name: string } }>(
      service.url,
      'mutation ($definition: String!) { applyTask(definition: $definition) { name } }',
      { definition },
    );
    const context = { url: service.url, task: applyTask.name, data, state, save, strategy, seed, name };
    if (state.streamSeconds === null) {
      state.streamSeconds = await stream(context);
      save();
    }
    while (state.points.length < wanted) {
      const point = await nextPoint(context);
      state.points.push(point);
      save();
      say(`${name}: ${point.labels} labels, accuracy ${(100 * point.accuracy).toFixed(1)} %`);
    }
  } finally {
    await service.stop();
  }
  return folder;
}

interface Context {
  url: string;
  task: string;
  data: LoopData;
  state: State;
  save: () => void;
  strategy: string;
  seed: number;
  name: string;
}

async function stream({ url, task, data, name }: Context): Promise<number> {
  const started = Date.now();
  const mutation =
    'mutation ($task: String!, $inputs: [TextInput!]!) { ingest(task: $task, inputs: $inputs) { accepted duplicates } }';
  let index = 0;
  for await (const rows of chunks(data.streamed, 500)) {
    await query(url, mutation, { task, inputs: rows.map(({ text }) => ({ id: `s${index++}`, text })) });
  }
  for (let told = 0; ; ) {
    const { task: found } = await query<{ task: { stream: { pending: number; scored: number } } }>(
      url,
      'query ($task: String!) { task(name: $task) { stream { pending scored } } }',
      { task },
    );
    if (found.stream.pending === 0) break;
    if (Date.now() - told > 30_000) {
      say(`${name}: ${found.stream.scored} of ${data.streamed.length} streamed texts scored`);
      told = Date.now();
    }
    await sleep(1000);
  }
  return (Date.now() - started) / 1000;
}

/** The first point is zero-shot; each later one adds labels, retrains and promotes. */
async function nextPoint(context: Context): Promise<Point> {
  const { state, data } = context;
  const round = state.points.length - 1;
  if (round < 0) return evaluate(context, 0, null, null);
  const wanted = data.start.length + round * ANSWERS;
  if (state.labelled.length < wanted) {
    if (round === 0) await importTrain(context, data.start);
    else if (context.strategy === 'RANDOM') await importTrain(context, randomRows(context, wanted - state.labelled.length));
    else await answerQueue(context, wanted - state.labelled.length);
  }
  const { seconds, promotion, verdict } = await retrain(context);
  const approve = () => approvePromotion(context.url, promotion);
  if (round === ROUNDS && options.load && state.load === null) {
    state.load = await promotionUnderLoad(context.url, context.task, data.streamed.slice(0, 500).map((row) => row.text), approve);
  } else {
    await approve();
  }
  return evaluate(context, state.labelled.length, seconds, verdict);
}

async function importTrain({ url, task, state, save }: Context, rows: Row[]): Promise<void> {
  const mutation =
    'mutation ($task: String!, $examples: [ExampleInput!]!) { importExamples(task: $task, examples: $examples) { added rejected { message } } }';
  const examples = rows.map(({ text, label }) => ({ text, labels: [label], split: 'TRAIN' }));
  await query(url, mutation, { task, examples });
  state.labelled.push(...rows);
  save();
}

/** Random streamed texts, by the seed: what a team without a query strategy would label. */
function randomRows({ data, state }: Context, count: number): Row[] {
  const done = new Set(state.labelled.map((row) => row.text));
  return data.streamed.filter((row) => !done.has(row.text)).slice(0, count);
}

async function answerQueue({ url, task, data, state, save, strategy, name }: Context, count: number): Promise<void> {
  state.refreshSeconds.push(await refreshed(url, task, name));
  const labelOf = new Map(data.streamed.map((row) => [row.text, row.label]));
  const { reviewQueue } = await query<{ reviewQueue: { edges: { node: { id: string; text: string } }[] } }>(
    url,
    'query ($task: String!, $strategy: QueryStrategy, $first: Int!) { reviewQueue(task: $task, first: $first, strategy: $strategy) { edges { node { id text } } } }',
    { task, strategy, first: count },
  );
  for (const { node } of reviewQueue.edges) {
    const label = labelOf.get(node.text) as string;
    await query(url, 'mutation ($id: ID!, $labels: [String!]!) { label(candidate: $id, labels: $labels) { id } }', {
      id: node.id,
      labels: [label],
    });
    state.labelled.push({ text: node.text, label });
    save();
  }
}

/**
 * Waits until the active version has scored the likeliest questions: the pool is scored anew from the most uncertain,
 * and a labeler would not wait for the rest. Answers seconds.
 */
async function refreshed(url: string, task: string, name: string): Promise<number> {
  const started = Date.now();
  for (let first = -1; ; await sleep(1000)) {
    const { task: found } = await query<{ task: { pool: { outdated: number } } }>(
      url,
      'query ($task: String!) { task(name: $task) { pool { outdated } } }',
      { task },
    );
    const { outdated } = found.pool;
    if (first < 0) {
      first = outdated;
      say(`${name}: ${outdated} candidates to be scored anew`);
    }
    if (outdated === 0 || first - outdated >= FRESH) return (Date.now() - started) / 1000;
  }
}

async function retrain({ url, task, name }: Context): Promise<{ seconds: number; promotion: string; verdict: string }> {
  const started = Date.now();
  const runs = await query<{ task: { runs: { id: string; state: string }[] } }>(
    url,
    'query ($task: String!) { task(name: $task) { runs(first: 1) { id state } } }',
    { task },
  );
  const open = runs.task.runs.find((run) => ['QUEUED', 'RUNNING'].includes(run.state));
  const id =
    open?.id ??
    (await query<{ startRetrain: { id: string } }>(url, 'mutation ($task: String!) { startRetrain(task: $task) { id } }', { task }))
      .startRetrain.id;
  for (let told = ''; ; ) {
    const { trainingRun: run } = await query<{
      trainingRun: { state: string; stage: string; progress: number; error: string | null; produced: { version: number } | null };
    }>(url, 'query ($id: ID!) { trainingRun(id: $id) { state stage progress error produced { version } } }', { id });
    if (run.state === 'FAILED' || run.state === 'CANCELLED') throw new Error(`${name}: run ${run.state}: ${run.error}`);
    if (run.state === 'SUCCEEDED' && run.produced) {
      const seconds = (Date.now() - started) / 1000;
      const { task: found } = await query<{ task: { promotions: { id: string; verdict: string; version: { version: number } }[] } }>(
        url,
        'query ($task: String!) { task(name: $task) { promotions(first: 5) { id verdict version { version } } } }',
        { task },
      );
      const promotion = found.promotions.find((p) => p.version.version === run.produced?.version);
      if (promotion) return { seconds, promotion: promotion.id, verdict: promotion.verdict };
    }
    if (run.stage !== told) say(`${name}: ${run.stage} ${(100 * run.progress).toFixed(0)} %`);
    told = run.stage;
    await sleep(1000);
  }
}

async function approvePromotion(url: string, id: string): Promise<void> {
  await query(url, 'mutation ($id: ID!) { approvePromotion(id: $id, override: true, comment: "benchmark round") { decision } }', { id });
}

async function evaluate(
  { url, task, data }: Context,
  labels: number,
  trainSeconds: number | null,
  verdict: string | null,
): Promise<Point> {
  const started = Date.now();
  let hits = '';
  let version = 0;
  for await (const rows of chunks(data.heldOut, 64)) {
    const { classify } = await query<{ classify: { label: string; modelVersion: number }[] }>(
      url,
      'query ($task: String!, $inputs: [TextInput!]!) { classify(task: $task, inputs: $inputs) { label modelVersion } }',
      { task, inputs: rows.map(({ text }) => ({ text })) },
    );
    hits += classify.map((prediction, index) => (prediction.label === rows[index]?.label ? '1' : '0')).join('');
    version = classify[0]?.modelVersion ?? version;
  }
  const accuracy = [...hits].filter((hit) => hit === '1').length / hits.length;
  return { labels, version, accuracy, hits, trainSeconds, verdict, evaluateSeconds: (Date.now() - started) / 1000 };
}
