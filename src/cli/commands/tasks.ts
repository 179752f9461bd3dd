import type { Command } from 'commander';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from 'tokenizers';
import { FewloopError } from '../../common/errors.js';
import { Config } from '../../config/config.js';
import { parseTask } from '../../task/definition.js';
import { type LintFinding, lintTask } from '../../task/lint.js';
import { requireSupported } from '../../task/support.js';
import { Failure } from '../client.js';
import { contextOf, readText } from '../context.js';
import { print, printJson, say, table } from '../output.js';

const APPLY = `mutation ($definition: String!, $retire: Boolean!) {
  applyTask(definition: $definition, retire: $retire) {
    name kind revision labels activeVersion { version state } findings { severity field message }
  }
}`;
const LISTED = 'name kind revision activeVersion { version }';
const LIST = [`{ tasks { ${LISTED} examples { train dev test } } }`, `{ tasks { ${LISTED} } }`] as const;
/** By the least role that may see them. */
const SHOWN = {
  client: 'name kind labels revision activeVersion { version state digest createdAt }',
  labeler: `definition findings { severity field message }
    pool { total contested awaitingReview labelled pseudoLabelled } examples { train dev test revoked byLabel }`,
  engineer: `liveAccuracy {
    version rows right accuracy low high byLabel { label rows accuracy low high } calibration calibrationError
    waiting skipped
  }
  drift {
    version checkedAt reference present level alarm statistics { name stabilityIndex distance effect p alarm }
  }
  stopping { advice statement slope { perDoubling low high } agreement }
  agreement { alpha questions disagreements waiting disputed }`,
};
const showing = (...fields: string[]) => `query ($name: String!) { task(name: $name) { ${fields.join(' ')} } }`;
const SHOW = [
  showing(SHOWN.client, SHOWN.labeler, SHOWN.engineer),
  showing(SHOWN.client, SHOWN.labeler),
  showing(SHOWN.client),
] as const;

interface AppliedTask {
  name: string;
  revision: number;
  activeVersion: { version: number } | null;
  findings: { severity: 'ERROR' | 'WARNING'; field: string; message: string }[];
}

interface TaskSummary {
  name: string;
  kind: string;
  revision: number;
  activeVersion: { version: number } | null;
  /** Not for a CLIENT. */
  examples?: { train: number; dev: number; test: number };
}

export function taskCommands(program: Command): void {
  const task = program.command('task').description('task files');
  task
    .command('apply <file>')
    .description('create a task, or a new revision of it')
    .option('--retire', 'take labels away although they have examples, which stay and take no further part', false)
    .action(apply);
  task.command('list').description('the tasks of the service').action(list);
  task.command('show <name>').description('one task with its counts').action(show);
  task.command('lint <file>').description('check a task file; needs no service').action(lint);
}

async function apply(file: string, { retire }: { retire: boolean }, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const definition = readText(file);
  const { applyTask } = await client.request<{ applyTask: AppliedTask }>(APPLY, { definition, retire });
  const { name, revision, activeVersion, findings } = applyTask;
  for (const { severity, field, message } of findings) say(`${file}: ${severity.toLowerCase()}: ${field}: ${message}`);
  if (json) printJson(applyTask);
  else print(`${name}: revision ${revision}, serving version ${activeVersion?.version ?? '(none yet)'}`);
}

async function list(_: object, command: Command): Promise<void> {
  const { client, json } = contextOf(command);
  const { tasks } = await client.requestAllowed<{ tasks: TaskSummary[] }>(LIST);
  if (json) return printJson(tasks);
  const rows = tasks.map(({ name, kind, revision, activeVersion, examples }) => {
    const counts = examples ? `${examples.train}/${examples.dev}/${examples.test}` : null;
    return [name, kind, revision, activeVersion?.version ?? null, counts];
  });
  print(table(['NAME', 'KIND', 'REVISION', 'VERSION', 'TRAIN/DEV/TEST'], rows));
}

async function show(name: string, _: object, command: Command): Promise<void> {
  const { client } = contextOf(command);
  const { task } = await client.requestAllowed<{ task: object | null }>(SHOW, { name });
  if (!task) throw new Failure(`there is no task ${name}`, 'TASK_NOT_FOUND');
  printJson(task);
}

async function lint(file: string, _: object, command: Command): Promise<void> {
  const { json } = contextOf(command);
  const findings = await findingsOf(readText(file));
  if (json) printJson(findings);
  else if (findings.length === 0) print(`${file}: nothing to say without the model; priors of templates apply shows`);
  else findings.forEach(({ severity, field, message }) => print(`${file}: ${severity}: ${field}: ${message}`));
  if (findings.some(({ severity }) => severity === 'error')) process.exitCode = 1;
}

async function findingsOf(source: string): Promise<LintFinding[]> {
  try {
    const { baseModel } = Config.load();
    const { max_position_embeddings: longest = 512 } = modelConfig(baseModel);
    const definition = parseTask(source);
    requireSupported(definition);
    return await lintTask(definition, openSpeller(baseModel), longest);
  } catch (error) {
    if (!(error instanceof FewloopError)) throw error;
    const { field = '', message } = error;
    return [
      {
        severity: 'error',
        field,
        message: message.startsWith(`${field}: `) ? message.slice(field.length + 2) : message,
      },
    ];
  }
}

function modelConfig(folder: string): { max_position_embeddings?: number } {
  const file = join(folder, 'config.json');
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { max_position_embeddings?: number }) : {};
}

/** The linter asks the base model's tokenizer, as the service does. */
function openSpeller(folder: string) {
  const tokenizer = Tokenizer.fromString(readFileSync(join(folder, 'tokenizer.json'), 'utf8'));
  tokenizer.disableTruncation();
  tokenizer.disablePadding();
  return {
    async encode(texts: string[]): Promise<number[][]> {
      const encodings = await tokenizer.encodeBatch(texts, { addSpecialTokens: false });
      return encodings.map((encoding) => encoding.getIds());
    },
    tokenToId: (token: string) => tokenizer.tokenToId(token) ?? undefined,
  };
}
