/**
 * What a shadow costs those who are waiting: the same open-loop load without and with one, in turn, so that a busy machine
 * is busy for both. A version of the real trainer on base-zh beside the zero-shot one it would replace.
 *   node bench/shadow/run.ts DATA_FOLDER --python PYTHON_OF_THE_TRAINER [--shares 0.3,0.6,0.8] [--rounds 6] [--seconds 20]
 * Prints JSON: by share of what the machine can do, median and 99th percentile without and with, their ratio by round, both
 * of all rounds' requests together with the 95 % interval of their difference (2,000 bootstrap draws of rounds), and how
 * much of the traffic was compared.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { query, runEnded, startService } from '../loop/service.ts';
import { closedLoop, openLoop, quantile, type Call, type Reply } from '../serving/load.ts';
import { readTexts, root } from '../serving/texts.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string' },
    shares: { type: 'string', default: '0.3,0.6,0.8' },
    rounds: { type: 'string', default: '6' },
    seconds: { type: 'string', default: '20' },
  },
});
const [data] = positionals;
if (!data || !values.python) throw new Error('usage: run.ts DATA_FOLDER --python PYTHON');
const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];

const TASK = 'review-sentiment';
const CAPACITY = { connections: 16, seconds: 15 };
const SHADOW_MINUTES = 60;
const WARM_SECONDS = 5;

const dataDir = mkdtempSync(join(tmpdir(), 'fewloop-shadow-'));
chmodSync(dataDir, 0o755); // PostgreSQL may run as another user, who walks through it
const service = await startService(dataDir, {
  FEWLOOP_PYTHON: values.python,
  PYTHONPATH: join(root, 'trainer'),
  FEWLOOP_CACHE_MB: '0',
  FEWLOOP_LOG_LEVEL: 'warn',
});
const ask = <T>(text: string, variables: Record<string, unknown> = {}) => query<T>(service.url, text, variables);

/** The challenger: trained on the example's labels by the tour's task file. Its number. */
async function train(): Promise<number> {
  const file = (name: string) => readFileSync(join(root, 'examples/reviews', name), 'utf8');
  await ask('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', { definition: file('quick.yaml') });
  const examples = file('labelled.jsonl').trim().split('\n').map((line) => JSON.parse(line) as { text: string; labels: string[] });
  await ask(`mutation ($examples: [ExampleInput!]!) { importExamples(task: "${TASK}", examples: $examples) { added } }`, {
    examples,
  });
  const { startRetrain } = await ask<{ startRetrain: { id: string } }>(`mutation { startRetrain(task: "${TASK}") { id } }`);
  const run = await runEnded(service.url, startRetrain.id);
  if (run.state !== 'SUCCEEDED') throw new Error(`the run ${run.state}: ${run.error}`);
  return run.produced!.version;
}

const calls: Call[] = readTexts(data, 4000).mixed.map((text) => ({
  path: '/graphql',
  body: JSON.stringify({
    query: `query ($inputs: [TextInput!]!) { classify(task: "${TASK}", inputs: $inputs) { label confidence modelVersion } }`,
    variables: { inputs: [{ text }] },
  }),
  texts: 1,
}));
const rounded = (value: number, digits = 1) => Number(value.toFixed(digits));

function figures(replies: Reply[]) {
  const failed = replies.filter(({ status, body }) => status !== 200 || body.includes('"errors"')).length;
  const latencies = replies.map(({ latencyMs }) => latencyMs);
  return { failed, latencies, p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) };
}

type Figures = ReturnType<typeof figures>;
interface Round {
  without: Figures;
  shadow: Figures;
}

/** Of all rounds' requests: without, with, and the interval of the difference; a round's requests are drawn together. */
function pooled(measured: Round[], q: number) {
  const of = (rounds: Round[], side: keyof Round) => quantile(rounds.flatMap((round) => round[side].latencies), q);
  const differences = Array.from({ length: 2000 }, () => {
    const drawn = measured.map(() => measured[Math.floor(Math.random() * measured.length)]!);
    return of(drawn, 'shadow') - of(drawn, 'without');
  });
  return {
    without: rounded(of(measured, 'without')),
    shadow: rounded(of(measured, 'shadow')),
    difference: [0.025, 0.975].map((at) => rounded(quantile(differences, at))),
  };
}

interface Trial {
  compared: number;
  missed: number;
}

/** The load beside a shadow whose model is loaded, and warm. */
async function beside(load: () => Promise<Reply[]>, warm: () => Promise<Reply[]>) {
  await ask(`mutation { startShadow(task: "${TASK}", version: ${challenger}, minutes: ${SHADOW_MINUTES}) { version } }`);
  await warm();
  const shadow = figures(await load());
  const { stopTrial: trial } = await ask<{ stopTrial: Trial }>(
    `mutation { stopTrial(task: "${TASK}", reason: "measured") { compared missed } }`,
  );
  return { shadow, trial };
}

let challenger = 0;
try {
  challenger = await train();
  const warm = await closedLoop(service.url, calls, CAPACITY.connections, CAPACITY.seconds);
  const capacity = warm.filter(({ atMs }) => atMs > 5000).length / (CAPACITY.seconds - 5);
  const shares: Record<string, object> = {};
  for (const share of values.shares.split(',').map(Number)) {
    const load = () => openLoop(service.url, calls, share * capacity, seconds);
    const measured: Round[] = [];
    let [compared, missed] = [0, 0];
    for (let round = 0; round < rounds; round++) {
      // What changes on the machine meanwhile is now on the one's side, now on the other's.
      const before = round % 2 === 0 ? figures(await load()) : undefined;
      const { shadow, trial } = await beside(load, () => openLoop(service.url, calls, share * capacity, WARM_SECONDS));
      const without = before ?? figures(await load());
      [compared, missed] = [compared + trial.compared, missed + trial.missed];
      measured.push({ without, shadow });
      const said = [without, shadow].map(({ p50, p99 }) => `${rounded(p50)} ${rounded(p99)}`);
      process.stderr.write(`${share}: median and 99th percentile ${said[0]} without, ${said[1]} with a shadow\n`);
    }
    const ratio = (name: 'p50' | 'p99') => measured.map(({ without, shadow }) => rounded(shadow[name] / without[name], 2));
    shares[share] = {
      ratePerSecond: rounded(share * capacity),
      requests: measured.reduce((sum, { without, shadow }) => sum + without.latencies.length + shadow.latencies.length, 0),
      byRound: measured.map(({ without, shadow }) => ({
        p50: [rounded(without.p50), rounded(shadow.p50)],
        p99: [rounded(without.p99), rounded(shadow.p99)],
      })),
      ratios: { p50: ratio('p50'), p99: ratio('p99') },
      pooled: { p50: pooled(measured, 0.5), p99: pooled(measured, 0.99) },
      failed: measured.reduce((sum, { without, shadow }) => sum + without.failed + shadow.failed, 0),
      comparedShare: rounded(compared / (compared + missed), 2),
    };
  }
  console.log(JSON.stringify({ at: new Date().toISOString(), cpu: cpus()[0]?.model, cores: cpus().length, load: loadavg()[0], capacity: rounded(capacity), rounds, seconds, shares }, null, 1));
} finally {
  await service.stop();
  rmSync(dataDir, { recursive: true, force: true });
}
