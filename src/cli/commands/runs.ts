/** Training runs: started, watched, cancelled. */
import type { Command } from 'commander';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, Failure } from '../client.js';
import { contextOf } from '../context.js';
import { print, printJson, progress, table } from '../output.js';

const FIELDS =
  'id task trigger reason state progress stage estimateSeconds error createdAt startedAt finishedAt produced { version state }';
const START = `mutation ($task: String!) { startRetrain(task: $task) { ${FIELDS} } }`;
const LIST = `query ($name: String!) { task(name: $name) { runs { ${FIELDS} } } }`;
const SHOWN = `${FIELDS} startedBy reproduces`;
const SHOW = [
  `query ($id: ID!) { trainingRun(id: $id) { ${SHOWN} dataDigest reproduction explanation } }`,
  `query ($id: ID!) { trainingRun(id: $id) { ${SHOWN} } }`,
] as const;
const REPRODUCE = `mutation ($id: ID!) { reproduceRun(id: $id) { ${FIELDS} } }`;
const OUTCOME = `query ($id: ID!) { trainingRun(id: $id) { reproduction } }`;
const PSEUDO_LABELS = `query ($id: ID!, $first: Int!, $after: Int!) { trainingRun(id: $id) {
  pseudoLabels(first: $first, after: $after) {
    totalCount nodes { itemKey item labels confidence contested strategy rule round votes { teacher labels } }
  }
} }`;
const CANCEL = `mutation ($id: ID!) { cancelRun(id: $id) { ${FIELDS} } }`;
const WATCH = `subscription ($id: ID!) { run: trainingRunProgress(id: $id) { ${FIELDS} } }`;

/** As many as the service answers at once: for each page it reads the run's files anew. */
const PAGE = 500;
const RECONNECT_MS = 1000;
const GIVE_UP_MS = 60_000;

interface Run {
  id: string;
  trigger: string;
  state: string;
  progress: number;
  stage: string | null;
  estimateSeconds: number | null;
  error: string | null;
  createdAt: string;
  produced: { version: number; state: string } | null;
}

interface PseudoLabel {
  item: { text: string; textPair?: string } | null;
  labels: string[];
  confidence: number;
  round: number;
  rule: string;
  votes: { teacher: string; labels: string[] }[];
}

interface PseudoLabelled {
  pseudoLabels: { totalCount: number; nodes: PseudoLabel[] } | null;
}

export function runCommands(program: Command): void {
  program
    .command('retrain <task>')
    .description('start a training run')
    .option('--wait', 'follow it to its end')
    .action(retrain);
  program.command('runs <task>').description('training runs').option('--wait', 'follow the open one').action(runs);
  const run = program.command('run').description('one training run');
  run.command('show <run>').description('its reason, settings, data, libraries').action(show);
  run
    .command('reproduce <run>')
    .description('run it again, with the same data and settings, and compare what comes of it')
    .option('--wait', 'follow it to its end')
    .action(reproduce);
  run
    .command('pseudo-labels <run>')
    .description('what its student learned beside human labels, and why each was selected')
    .action(pseudoLabels);
  program.command('cancel <run>').description('stop a training run').action(cancel);
}

async function retrain(task: string, { wait }: { wait?: boolean }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { startRetrain } = await client.request<{ startRetrain: Run }>(START, { task });
  if (wait) await follow(client, startRetrain, json);
  else printRun(startRetrain, json);
}

async function runs(task: string, { wait }: { wait?: boolean }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { task: found } = await client.request<{ task: { runs: Run[] } | null }>(LIST, { name: task });
  if (!found) throw new Failure(`there is no task ${task}`, 'TASK_NOT_FOUND');
  const open = found.runs.find(isOpen);
  if (wait && open) return follow(client, open, json);
  if (json) return printJson(found.runs);
  const rows = found.runs.map((run) => {
    const result = run.produced ? `version ${run.produced.version}` : (run.error ?? standing(run));
    return [run.id, run.createdAt, run.trigger, run.state, `${Math.round(run.progress * 100)}%`, result];
  });
  print(table(['RUN', 'CREATED', 'TRIGGER', 'STATE', 'DONE', 'RESULT'], rows));
}

async function show(id: string, _: object, command: Command): Promise<void> {
  const { client } = contextOf(command);
  const { trainingRun } = await client.requestAllowed<{ trainingRun: object | null }>(SHOW, { id });
  if (!trainingRun) throw new Failure(`there is no run ${id}`, 'RUN_NOT_FOUND');
  printJson(trainingRun);
}

async function pseudoLabels(id: string, _: object, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const found: PseudoLabel[] = [];
  for (let total = Infinity; found.length < total;) {
    const page = { id, first: PAGE, after: found.length };
    const { trainingRun } = await client.request<{ trainingRun: PseudoLabelled | null }>(PSEUDO_LABELS, page);
    if (!trainingRun) throw new Failure(`there is no run ${id}`, 'RUN_NOT_FOUND');
    if (!trainingRun.pseudoLabels) {
      throw new Failure(`run ${id} has selected none yet, or the service that answers does not keep its folder`);
    }
    const { totalCount, nodes } = trainingRun.pseudoLabels;
    if (nodes.length === 0) break;
    total = totalCount;
    found.push(...nodes);
  }
  if (json) return printJson(found);
  const rows = found.map(({ labels, confidence, round, rule, votes, item }) => {
    const agree = votes.filter((vote) => vote.labels.join('\0') === labels.join('\0')).length;
    const text = item ? [item.text, item.textPair ?? []].flat().join(' | ') : '(forgotten)';
    return [labels.join(' '), confidence.toFixed(2), round, rule, `${agree} of ${votes.length}`, text];
  });
  print(table(['LABEL', 'CONFIDENCE', 'ROUND', 'RULE', 'AGREE', 'TEXT'], rows));
}

async function reproduce(id: string, { wait }: { wait?: boolean }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { reproduceRun } = await client.request<{ reproduceRun: Run }>(REPRODUCE, { id });
  if (!wait) return printRun(reproduceRun, json);
  await follow(client, reproduceRun, json);
  type Outcome = { trainingRun: { reproduction: { statement: string } | null } | null };
  const { trainingRun } = await client.request<Outcome>(OUTCOME, { id: reproduceRun.id });
  if (!json && trainingRun?.reproduction) print(trainingRun.reproduction.statement);
}

async function cancel(id: string, _: object, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { cancelRun } = await client.request<{ cancelRun: Run }>(CANCEL, { id });
  printRun(cancelRun, json);
}

async function follow(client: Client, started: Run, json: boolean): Promise<void> {
  const bar = progress(100, '');
  let last = started;
  let silentSince = Date.now();
  try {
    while (isOpen(last)) {
      try {
        for await (const { run } of client.subscribe<{ run: Run }>(WATCH, { id: started.id })) {
          last = run;
          silentSince = Date.now();
          bar.update(Math.round(run.progress * 100), standing(run) ?? run.state.toLowerCase());
        }
      } catch (error) {
        // The service may be starting anew; the run goes on then.
        const refused = !(error instanceof Failure) || error.code !== null;
        if (refused || Date.now() - silentSince > GIVE_UP_MS) throw error;
      }
      if (isOpen(last)) await sleep(RECONNECT_MS);
    }
  } finally {
    bar.stop();
  }
  printRun(last, json);
  if (last.state !== 'SUCCEEDED') process.exitCode = 1;
}

/** The stage of an open run, and how long all of it takes. */
function standing({ stage, estimateSeconds }: Run): string | null {
  if (stage === null || estimateSeconds === null) return stage;
  const minutes = estimateSeconds / 60;
  return `${stage} (about ${minutes < 2 ? `${Math.round(estimateSeconds)} s` : `${Math.round(minutes)} min`} in all)`;
}

function isOpen({ state }: Run): boolean {
  return state === 'QUEUED' || state === 'RUNNING';
}

function printRun(run: Run, json: boolean): void {
  if (json) return printJson(run);
  const outcome = run.produced ? `: version ${run.produced.version}` : run.error ? `: ${run.error}` : '';
  print(`run ${run.id} ${run.state}${outcome}`);
}
