/** Versions that are tried on live traffic beside the active one. */
import type { Command } from 'commander';
import { Failure } from '../client.js';
import { above0, contextOf } from '../context.js';
import { print, printJson, table } from '../output.js';

const FIELDS = `id task version against kind percent startedBy startedAt endsAt endedAt outcome reason failure
  answered compared changed failed missed asked flips { champion challenger texts }`;
const LIST = `query ($name: String!) { task(name: $name) { versions { trials { ${FIELDS} } } } }`;
const START = `mutation ($task: String!, $version: Int!, $minutes: Float) {
  startShadow(task: $task, version: $version, minutes: $minutes) { task version state trials { ${FIELDS} } }
}`;
const STOP = `mutation ($task: String!, $reason: String!) { stopTrial(task: $task, reason: $reason) { ${FIELDS} } }`;

interface Trial {
  version: number;
  against: number;
  kind: string;
  startedAt: string;
  endsAt: string | null;
  outcome: string | null;
  failure: string | null;
  compared: number;
  changed: number;
  failed: number;
  missed: number;
  flips: { champion: string; challenger: string; texts: number }[];
}

export function trialCommands(program: Command): void {
  program
    .command('shadow <task> <version>')
    .description('compare a version with the active one on live traffic; no answer changes')
    .option('--minutes <minutes>', "until it ends by itself; the task's shadowMinutes where left out", above0)
    .action(shadow);
  program.command('trials <task>').description('shadows and canaries, with what changed').action(trials);
  program
    .command('trial')
    .description('the trial that is under way')
    .command('stop <task>')
    .description('end a shadow, or reject a canary')
    .requiredOption('--reason <text>', 'kept with it')
    .action(stopTrial);
}

async function shadow(task: string, version: string, options: { minutes?: number }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const variables = { task, version: Number(version), minutes: options.minutes };
  if (!Number.isInteger(variables.version)) throw new Failure('version must be a whole number', 'BAD_INPUT');
  const { startShadow } = await client.request<{ startShadow: { trials: Trial[] } }>(START, variables);
  const [trial] = startShadow.trials;
  if (json) printJson(trial);
  else print(`${task}: version ${version} is a shadow of ${trial!.against}${untilOf(trial!)}`);
}

async function trials(task: string, _: object, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { task: found } = await client.request<{ task: { versions: { trials: Trial[] }[] } | null }>(LIST, {
    name: task,
  });
  if (!found) throw new Failure(`there is no task ${task}`, 'TASK_NOT_FOUND');
  const all = found.versions
    .flatMap((version) => version.trials)
    .toSorted((a, b) => b.startedAt.localeCompare(a.startedAt));
  if (json) return printJson(all);
  const rows = all.map(({ kind, version, against, startedAt, compared, changed, failed, missed, outcome }) => {
    return [kind, version, against, startedAt, compared, changed, failed, missed, outcome ?? 'open'];
  });
  print(table(['TRIAL', 'VERSION', 'AGAINST', 'STARTED', 'COMPARED', 'CHANGED', 'FAILED', 'MISSED', 'OUTCOME'], rows));
  const [newest] = all;
  if (newest?.failure) print(`version ${newest.version}: ${newest.failure}`);
  if (!newest || newest.flips.length === 0) return;
  const flips = newest.flips.map(({ champion, challenger, texts }) => [champion, challenger, texts]);
  print(table([`VERSION ${newest.against} SAYS`, `VERSION ${newest.version} SAYS`, 'TEXTS'], flips));
}

async function stopTrial(task: string, { reason }: { reason: string }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { stopTrial: trial } = await client.request<{ stopTrial: Trial }>(STOP, { task, reason });
  if (json) printJson(trial);
  else print(`${task}: the ${trial.kind.toLowerCase()} of version ${trial.version} ended, ${trial.outcome}`);
}

function untilOf({ endsAt }: Trial): string {
  return endsAt === null ? ', until trial stop or a decision' : ` until ${endsAt}`;
}
