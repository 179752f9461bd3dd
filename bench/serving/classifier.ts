/**
 * An EFL model as sequence classification: this service beside text-embeddings-inference with the same graph, and the
 * limit (README.md here).
 *   node bench/serving/classifier.ts DATA_FOLDER OUT_FOLDER --python PYTHON_OF_THE_TRAINER [--tei PATH] [--seconds 15] …
 * Pairs of a text and what it may be. The model is a student by the real trainer, of a few steps: it stays in
 * OUT_FOLDER, and its speed does not depend on what it learned. Prints a table; OUT_FOLDER/classifier.json has all rounds.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { query, runEnded, startService } from '../loop/service.ts';
import { fewloop, type Contestant } from './contestants.ts';
import { checkAnswers, limit, underLoad, type Figures, type LimitFigures, type LimitSetting, type Load } from './measure.ts';
import { tei, writeModel } from './peers/tei.ts';
import { readTexts, root, tokenizePairs } from './texts.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string' },
    tei: { type: 'string' },
    seconds: { type: 'string', default: '15' },
    'warm-seconds': { type: 'string', default: '3' },
    rounds: { type: 'string', default: '2' },
    texts: { type: 'string', default: '4000' },
  },
});
const [data, outFolder] = positionals;
if (!data || !outFolder) throw new Error('usage: classifier.ts DATA_FOLDER OUT_FOLDER --python PYTHON [--tei PATH] …');
const out = resolve(outFolder);
const dataDir = join(out, 'fewloop');
mkdirSync(dataDir, { recursive: true });

const LABELS = ['yes', 'no'];
const REVIEW = '这是一条顾客评论。';
const TITLE = '这是一条新闻标题。';
const TASK = {
  name: 'pairs',
  kind: 'sentence-pair',
  method: 'efl',
  labels: LABELS.map((name) => ({ name })),
  maxLength: 128,
  serving: { policy: 'student', precisions: ['fp32'] },
  learning: { budgetSeconds: 600, strategies: ['plain'], trigger: { newLabels: null, schedule: null } },
};
const TRAIN = 32;
const DEV = 100;
const CHECKED = 16;
const SETTINGS = [4, 8, 16].flatMap((batch): LimitSetting[] => [
  { batch, sessions: 2, threads: 1 },
  { batch, sessions: 1, threads: 2 },
]);
const times = { warmSeconds: Number(values['warm-seconds']), seconds: Number(values.seconds) };
const LOADS: [string, Load][] = [
  ['8 connections', { connections: 8, textsPerRequest: 1, ...times }],
  ['32 connections', { connections: 32, textsPerRequest: 1, ...times }],
  ['64 texts a request', { connections: 4, textsPerRequest: 64, ...times }],
];

const sets = readTexts(data, Number(values.texts));
/** Half of the texts are asked about each. */
const pairOf = (text: string): [string, string] => [text, text.length % 2 ? REVIEW : TITLE];

/** Reviews and titles are what they are. */
async function train(url: string): Promise<void> {
  const ask = <T>(text: string, variables: Record<string, unknown> = {}) => query<T>(url, text, variables);
  await ask('mutation ($d: String!) { applyTask(definition: $d) { name } }', { d: JSON.stringify(TASK) });
  const texts = sets.reviews.flatMap((review, i) => [review, sets.titles[i]!]).slice(0, TRAIN + DEV);
  const examples = texts.map((text, i) => {
    const [, textPair] = pairOf(text);
    const label = LABELS[(i % 2 === 0) === (textPair === REVIEW) ? 0 : 1];
    return { text, textPair, labels: [label], split: i < TRAIN ? 'TRAIN' : 'DEV' };
  });
  await ask('mutation ($e: [ExampleInput!]!) { importExamples(task: "pairs", examples: $e) { added } }', { e: examples });
  const { startRetrain } = await ask<{ startRetrain: { id: string } }>('mutation { startRetrain(task: "pairs") { id } }');
  const run = await runEnded(url, startRetrain.id);
  if (run.state !== 'SUCCEEDED') throw new Error(`the run ${run.state}: ${run.error}`);
  const { task } = await ask<{ task: { promotions: { id: string }[] } }>('{ task(name: "pairs") { promotions { id } } }');
  const approve = 'mutation ($id: ID!) { approvePromotion(id: $id, override: true, comment: "to be measured") { id } }';
  await ask(approve, { id: task.promotions[0]!.id });
}

/** The student's graph and the temperature of its answers. */
async function model(): Promise<{ folder: string; temperature: number }> {
  const bundle = join(dataDir, 'bundles', TASK.name, '1');
  const done = join(out, 'trained');
  if (!existsSync(done)) {
    if (!values.python) throw new Error('there is no model yet: --python PYTHON_OF_THE_TRAINER');
    const python = { FEWLOOP_PYTHON: resolve(values.python), PYTHONPATH: join(root, 'trainer') };
    const service = await startService(dataDir, { FEWLOOP_LOG_LEVEL: 'warn', ...python });
    try {
      await train(service.url);
    } finally {
      await service.stop();
    }
    writeFileSync(done, '');
  }
  const manifest = JSON.parse(readFileSync(join(bundle, 'manifest.json'), 'utf8')) as Manifest;
  const student = manifest.members.find(({ role }) => role === 'student')!;
  const graph = join(bundle, manifest.graphs.find(({ id }) => id === student.graph)!.file);
  const folder = join(out, 'model');
  writeModel(folder, { base: join(root, 'models/base-zh'), graph, labels: LABELS, maxLength: TASK.maxLength });
  return { folder, temperature: manifest.policies.student.temperature };
}

interface Manifest {
  members: { role: string; graph: string }[];
  graphs: { id: string; file: string }[];
  policies: { student: { temperature: number } };
}

/** The service with the model that it trained. */
function service(): Contestant {
  const q = `query ($inputs: [TextInput!]!) { classify(task: "pairs", inputs: $inputs) { distribution { label probability } } }`;
  return {
    ...fewloop(out),
    start: () => startService(dataDir, { FEWLOOP_LOG_LEVEL: 'warn', FEWLOOP_CACHE_MB: '0' }),
    call: (texts) => {
      const inputs = texts.map(pairOf).map(([text, textPair]) => ({ text, textPair }));
      return { path: '/graphql', body: JSON.stringify({ query: q, variables: { inputs } }), texts: texts.length };
    },
    read(body) {
      const { data: answer, errors } = JSON.parse(body) as Answer;
      if (errors?.length) throw new Error(errors[0]!.message);
      return answer.classify.map(({ distribution }) =>
        LABELS.map((name) => distribution.find(({ label }) => label === name)!.probability),
      );
    },
  };
}

interface Answer {
  data: { classify: { distribution: { label: string; probability: number }[] }[] };
  errors?: { message: string }[];
}

const { folder, temperature } = await model();
const program = [process.execPath, join(root, 'bench/serving/limit.ts')];
const rows = async (name: string, texts: string[]) => {
  const file = join(out, `pairs-${name}.json`);
  writeFileSync(file, JSON.stringify(await tokenizePairs(folder, texts.map(pairOf), TASK.maxLength)));
  return file;
};
const checked = sets.mixed.slice(0, CHECKED);
const scores = [...program, '--scores'];
const logits = (await limit(scores, [folder, await rows('checked', checked)], {}, 0)) as unknown as number[][];
if (new Set(logits.map(([a = 0, b = 0]) => (a - b).toFixed(2))).size < CHECKED / 2) {
  throw new Error(`the model learned nothing, so that its answers would check nothing: see ${dataDir}, and train anew`);
}
const own = service();
const peers = values.tei ? tei(resolve(values.tei), out, folder, { labels: LABELS, pairOf }) : [];

const sweep = await rows('sweep', sets.mixed.slice(0, 500));
const tried: [LimitSetting, number][] = [];
for (const setting of SETTINGS) {
  tried.push([setting, (await limit(program, [folder, sweep], setting, 1)).textsPerSecond]);
}
const [best] = tried.toSorted(([, a], [, b]) => b - a)[0]!;
const all = await rows('all', sets.mixed.slice(0, 2000));

/** Load → contestant → its figures, one a round. */
const found: Record<string, Record<string, (Figures | LimitFigures)[]>> = {};
for (let round = 0; round < Number(values.rounds); round++) {
  for (const [name, load] of LOADS) {
    const measured = (found[name] ??= {});
    const tell = (contestant: string, figures: Figures | LimitFigures) => {
      (measured[contestant] ??= []).push(figures);
      process.stderr.write(`${name}, ${contestant}: ${JSON.stringify(figures)}\n`);
    };
    tell('limit', await limit(program, [folder, all], best, times.seconds));
    for (const contestant of [own, ...peers]) {
      const server = await contestant.start(undefined);
      try {
        // The service's probabilities are calibrated.
        const expected = contestant === own ? logits.map((row) => row.map((logit) => logit / temperature)) : logits;
        await checkAnswers(contestant, server, checked, expected);
        tell(contestant.name, await underLoad(contestant, server, sets.mixed, load));
      } finally {
        await server.stop();
      }
    }
  }
}
writeFileSync(join(out, 'classifier.json'), `${JSON.stringify({ best, temperature, times, found }, null, 1)}\n`);
process.stdout.write('| load | | texts/s | of the limit | p50 ms | p99 ms | CPU s per 1,000 | peak PSS MiB | failed |\n');
process.stdout.write(`|${'---|'.repeat(9)}\n`);
for (const [load, contestants] of Object.entries(found)) {
  const mean = (name: string, figure: keyof Figures) => {
    const rounds = contestants[name]!.map((figures) => (figures as Figures)[figure]).filter((value) => value !== undefined);
    return rounds.length ? rounds.reduce((sum, value) => sum + value, 0) / rounds.length : NaN;
  };
  for (const name of Object.keys(contestants)) {
    const shown = (figure: keyof Figures, digits = 0) => {
      const value = mean(name, figure);
      return Number.isNaN(value) ? '' : value.toFixed(digits);
    };
    const share = (mean(name, 'textsPerSecond') / mean('limit', 'textsPerSecond')).toFixed(2);
    const cells = [load, name, shown('textsPerSecond'), share, shown('p50Ms'), shown('p99Ms'), shown('cpuSecondsPer1000', 2)];
    process.stdout.write(`| ${[...cells, shown('peakPssMib'), shown('failures')].join(' | ')} |\n`);
  }
}
