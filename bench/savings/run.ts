/**
 * What is saved by asking fewer members, and what it costs in agreement with the full ensemble: five PET teachers and a
 * student by the real trainer on base-zh, then the same texts by ENSEMBLE, CASCADE and STUDENT, by turns.
 *   node bench/savings/run.ts DATA_FOLDER OUT_FOLDER --python PYTHON_OF_THE_TRAINER [--unlabelled 1000] [--texts 5000] [--rounds 2]
 *     [--accept 0.85] [--skip 0]
 * OUT_FOLDER keeps the version, so that another run measures the same one, by another `accept` and on other texts (--skip)
 * if asked. Prints JSON.
 */
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { chunks, query, runEnded, startService } from '../loop/service.ts';
import { root } from '../serving/texts.ts';
import { cpuSeconds, tree } from '../serving/tree.ts';
import { askAll, PER_REQUEST } from './requests.ts';
import { reviews, type Review } from './reviews.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string' },
    unlabelled: { type: 'string', default: '1000' },
    texts: { type: 'string', default: '5000' },
    rounds: { type: 'string', default: '2' },
    accept: { type: 'string', default: '0.85' },
    skip: { type: 'string', default: '0' },
  },
});
const [data, out] = positionals;
if (!data || !out || !values.python) throw new Error('usage: run.ts DATA_FOLDER OUT_FOLDER --python PYTHON');

const POLICIES = ['ENSEMBLE', 'CASCADE', 'STUDENT'] as const;
type Policy = (typeof POLICIES)[number];
const TRAIN = 64;
const DEV = 200;
const UNLABELLED = Number(values.unlabelled);
const ACCEPT = Number(values.accept);
const TASK = {
  name: 'savings',
  kind: 'single-label',
  labels: [
    { name: '1', words: ['好', '赞', '棒', '美'] },
    { name: '0', words: ['差', '糟', '烂', '坏'] },
  ],
  templates: ['很{mask}。{text}', '{text} 总之很{mask}。', '东西很{mask}，{text}', '质量{mask}。{text}', '评价：{mask}。{text}'],
  maxLength: 128,
  routing: { accept: ACCEPT },
  learning: { budgetSeconds: 7200, unlabelled: UNLABELLED, strategies: ['plain'], trigger: { newLabels: null, schedule: null } },
};

interface Answer {
  label: string;
  confidence: number;
  route: string;
  /** Null where one member was asked. */
  disagreement: { voters: number } | null;
}

mkdirSync(out, { recursive: true });
chmodSync(out, 0o755); // PostgreSQL may run as another user, who walks through it
const service = await startService(out, {
  FEWLOOP_PYTHON: values.python,
  PYTHONPATH: join(root, 'trainer'),
  FEWLOOP_CACHE_MB: '0',
  FEWLOOP_LOG_LEVEL: 'warn',
});
const ask = <T>(text: string, variables: Record<string, unknown> = {}) => query<T>(service.url, text, variables);

const applyTask = async () => {
  await ask('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', { definition: JSON.stringify(TASK) });
};

async function train(all: Review[]): Promise<void> {
  const labelled = all.slice(0, TRAIN + DEV).map(({ text, label }, i) => ({ text, labels: [label], split: i < TRAIN ? 'TRAIN' : 'DEV' }));
  await ask(`mutation ($examples: [ExampleInput!]!) { importExamples(task: "savings", examples: $examples) { added } }`, { examples: labelled });
  for await (const part of chunks(all.slice(TRAIN + DEV, TRAIN + DEV + UNLABELLED), PER_REQUEST)) {
    const inputs = part.map(({ text }) => ({ text }));
    await ask('mutation ($inputs: [TextInput!]!) { ingest(task: "savings", inputs: $inputs) { accepted } }', { inputs });
  }
  for (;;) {
    const { task } = await ask<{ task: { pool: { total: number } } }>('{ task(name: "savings") { pool { total } } }');
    if (task.pool.total >= UNLABELLED) break;
    await sleep(1000);
  }
  const { startRetrain } = await ask<{ startRetrain: { id: string } }>('mutation { startRetrain(task: "savings") { id } }');
  const run = await runEnded(service.url, startRetrain.id, (stage, progress) =>
    process.stderr.write(`\r${stage} ${(100 * progress).toFixed(0)} %        `),
  );
  if (run.state !== 'SUCCEEDED') throw new Error(`the run ${run.state}: ${run.error}`);
}

async function activate(): Promise<void> {
  const text = '{ task(name: "savings") { promotions { id } } }';
  const { task } = await ask<{ task: { promotions: { id: string }[] } }>(text);
  const approve = 'mutation ($id: ID!) { approvePromotion(id: $id, override: true, comment: "to be measured") { id } }';
  if (task.promotions.length === 0) throw new Error('the run asked for no promotion');
  await ask(approve, { id: task.promotions[0]!.id });
}

/** Candidates are scored anew by a version that becomes active: beside what is measured that would be other work. */
async function settled(): Promise<void> {
  for (;;) {
    const { task } = await ask<{ task: { pool: { outdated: number } } }>('{ task(name: "savings") { pool { outdated } } }');
    if (task.pool.outdated === 0) return;
    await sleep(1000);
  }
}

async function answer(texts: string[], policy: Policy): Promise<Answer[]> {
  const text = `query ($inputs: [TextInput!]!, $options: ClassifyOptions) {
    classify(task: "savings", inputs: $inputs, options: $options) { label confidence route disagreement { voters } }
  }`;
  const options = { policy, deadlineMs: 60_000 };
  return askAll(
    texts,
    async (inputs) => (await ask<{ classify: Answer[] }>(text, { inputs, options })).classify,
    (done, all) => void process.stderr.write(`\r${policy} ${done} of ${all}      `),
  );
}

try {
  const all = reviews(data);
  await applyTask();
  const steps: Record<string, () => Promise<void>> = { trained: () => train(all), active: activate };
  for (const [name, step] of Object.entries(steps)) {
    if (existsSync(join(out, name))) continue;
    await step();
    writeFileSync(join(out, name), '');
  }
  const from = TRAIN + DEV + UNLABELLED + Number(values.skip);
  const measured = all.slice(from, from + Number(values.texts));
  const texts = measured.map(({ text }) => text);
  await settled();
  await answer(texts.slice(0, 4 * PER_REQUEST), 'ENSEMBLE');
  const seconds: Record<Policy, number[]> = { ENSEMBLE: [], CASCADE: [], STUDENT: [] };
  const processor: Record<Policy, number[]> = { ENSEMBLE: [], CASCADE: [], STUDENT: [] };
  const answers = {} as Record<Policy, Answer[]>;
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const policy of round % 2 === 0 ? POLICIES : POLICIES.toReversed()) {
      const [startedMs, before] = [performance.now(), cpuSeconds(tree(service.pid))];
      answers[policy] = await answer(texts, policy);
      seconds[policy].push((performance.now() - startedMs) / 1000);
      processor[policy].push(cpuSeconds(tree(service.pid)) - before);
    }
  }
  const full = answers.ENSEMBLE;
  const share = (policy: Policy, is: (answer: Answer, i: number) => boolean) => answers[policy].filter(is).length / texts.length;
  const student = answers.STUDENT;
  const isDoubtful = ({ route, confidence }: Answer) => route === 'REVIEW' || confidence < ACCEPT;
  const doubtful = student.map(isDoubtful);
  const votersOf = (of: Answer[]) => of.reduce((sum, { disagreement }) => sum + (disagreement?.voters ?? 1), 0) / of.length;
  // Another threshold would ask about others; the two policies' answers say what it would come to.
  const atThreshold = (accept: number) => {
    const sure = student.map(({ confidence }) => confidence >= accept);
    const same = sure.filter((is, i) => !is || student[i]!.label === full[i]!.label).length;
    return { accept, asked: sure.filter((is) => !is).length / texts.length, agreement: same / texts.length };
  };
  const result = {
    machine: { cpu: cpus()[0]!.model, cores: cpus().length, load: loadavg() },
    texts: texts.length,
    unlabelled: UNLABELLED,
    skipped: Number(values.skip),
    accept: ACCEPT,
    policies: POLICIES.map((policy) => ({
      policy,
      seconds: seconds[policy],
      processorSeconds: processor[policy],
      agreement: share(policy, ({ label }, i) => label === answers.ENSEMBLE[i]!.label),
      accuracy: share(policy, ({ label }, i) => label === measured[i]!.label),
      review: share(policy, ({ route }) => route === 'REVIEW'),
    })),
    teachersAskedByCascade: doubtful.filter(Boolean).length / texts.length,
    thresholds: [0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95].map(atThreshold),
    // Of the texts that the cascade's student was unsure of: teachers are asked in turn until the label is certain.
    teachers: { all: votersOf(full), inTurn: votersOf(answers.CASCADE.filter((_, i) => doubtful[i])) },
  };
  process.stdout.write(`${JSON.stringify(result, null, 1)}\n`);
} finally {
  await service.stop();
}
