/**
 * The README, executed: `npm start` on a data folder of its own, then the tour's commands in order, in a shell. What each
 * prints must be what the README shows, but for
 * - ids, which must recur where the README's do, and stand in its commands for those that were printed;
 * - times, decimal numbers and percentages, of which the form alone is compared;
 * - the address that the service listens on;
 * - the rest of a line whose end the README leaves out with "…".
 * A block marked `keys=…` gets those keys on standard input. One marked `eventually` is asked until it answers so: texts
 * are scored behind the stream. Progress bars (of --wait) are not compared.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { descendants, isAlive, until } from '../fixtures/processes.js';
import { makeDataDir, trainerPython } from '../fixtures/service-process.js';

const ROOT = resolve(import.meta.dirname, '../..');
const README = readFileSync(resolve(ROOT, 'README.md'), 'utf8');
const ADDRESS = '127.0.0.1:3000';
const START_MS = 120_000;
const EVENTUALLY_MS = 60_000;
const ID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/gu;

interface Step {
  command: string;
  output: string;
  keys: string[];
  eventually: boolean;
}

/** The `$ command`s of the console blocks between `<!-- name -->` and `<!-- /name -->`, with what follows each. */
function stepsOf(name: string): Step[] {
  const section = new RegExp(`<!-- ${name} -->\n(.*?)<!-- /${name} -->`, 'su').exec(README)?.[1] ?? '';
  return [...section.matchAll(/^```console([^\n]*)\n(.*?)^```$/gmsu)].flatMap(([, marks = '', block = '']) =>
    block
      .split(/^\$ /mu)
      .slice(1)
      .map((part) => {
        const [command = '', ...output] = part.trimEnd().split('\n');
        const keys = /keys=(\S+)/u.exec(marks)?.[1]?.split(',') ?? [];
        return { command, output: output.join('\n'), keys, eventually: marks.includes('eventually') };
      }),
  );
}

/** Ids in the order in which they first appear, on either side. */
const ids = { readme: [] as string[], printed: [] as string[] };

function printedFor(id: string): string {
  const printed = ids.printed[ids.readme.indexOf(id)];
  if (printed === undefined) throw new Error(`nothing was printed where the README shows ${id}`);
  return printed;
}

function normalised(text: string, seen: string[]): string {
  const numbered = text.replace(ID, (id) => {
    if (!seen.includes(id)) seen.push(id);
    return `<id ${seen.indexOf(id) + 1}>`;
  });
  return numbered
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/gu, '<time>')
    .replace(/\d+\.\d+(?![.\d])/gu, '<number>')
    .replace(/ *\d+%/gu, ' <percentage>')
    .trimEnd();
}

/** What was printed, its lines cut where the README cuts them. */
function cut(printed: string, shown: string): string {
  const wanted = shown.split('\n');
  return printed
    .split('\n')
    .map((line, i) => {
      const end = wanted[i]?.endsWith('…') ? wanted[i].slice(0, -1) : null;
      return end !== null && line.startsWith(end) ? `${end}…` : line;
    })
    .join('\n');
}

let dataDir: string;
let start: ChildProcess;
let started = '';
let address: string;

const environment = () => ({
  ...process.env,
  PORT: '0',
  FEWLOOP_DATA_DIR: dataDir,
  FEWLOOP_PYTHON: trainerPython(),
  FEWLOOP_LOG_LEVEL: 'error',
});

async function shell({ command, keys }: Step): Promise<{ output: string; code: number | null }> {
  const actual = command.replace(ID, printedFor).replaceAll(ADDRESS, address);
  // One pipe for both, so that their order is kept.
  const errors = command.includes('--wait') ? '2>/dev/null' : '2>&1';
  const child = spawn('sh', ['-c', `{ ${actual}\n} ${errors}`], {
    cwd: ROOT,
    env: { ...process.env, FEWLOOP_URL: `http://${address}/graphql` },
  });
  let output = '';
  child.stdout.on('data', (bytes: Buffer) => (output += bytes.toString()));
  child.stdin.end(keys.map((key) => `${key}\n`).join(''));
  const [code] = (await once(child, 'close')) as [number | null];
  return { output, code };
}

beforeAll(async () => {
  dataDir = makeDataDir();
  // A group of its own, as a terminal would have it.
  const stdio = ['ignore', 'pipe', 'pipe'] as const;
  start = spawn('npm', ['start'], { cwd: ROOT, env: environment(), stdio: [...stdio], detached: true });
  const read = (bytes: Buffer) => (started += bytes.toString());
  start.stdout!.on('data', read);
  start.stderr!.on('data', read);
  await until(() => /^Try .*\n/mu.test(started) || start.exitCode !== null, START_MS).catch(() => undefined);
  address = /^ready http:\/\/(\S+)\/graphql$/mu.exec(started)?.[1] ?? '';
  if (address === '') throw new Error(`npm start did not start the service:\n${started}`);
});

afterAll(() => {
  if (start?.pid !== undefined && isAlive(start.pid)) process.kill(-start.pid, 'SIGKILL');
  if (dataDir !== undefined) rmSync(dataDir, { recursive: true, force: true });
});

it('starts as shown', () => {
  const [shown] = stepsOf('start');
  expect(shown?.command).toBe('npm start');
  // Nothing is to be installed or built here, and the log is quiet.
  const constant = (text: string) => text.split('\n').filter((line) => !/^(Installing|Building|\[)/u.test(line));
  expect(constant(started.trimEnd().replaceAll(address, ADDRESS))).toEqual(constant(shown!.output));
});

it('is not started twice on one data folder', async () => {
  const second = spawn('npm', ['start'], { cwd: ROOT, env: environment(), stdio: ['ignore', 'ignore', 'pipe'] });
  let errors = '';
  second.stderr.on('data', (bytes: Buffer) => (errors += bytes.toString()));
  const [code] = (await once(second, 'close')) as [number | null];
  expect(code).toBe(1);
  expect(errors).toContain(`another service (process`);
});

describe('the tour', () => {
  const steps = stepsOf('tour');

  it('goes from the first prediction to the rollback', () => {
    const verbs = steps.map(({ command }) => /npx fewloop (\S+)/u.exec(command)?.[1] ?? command.split(' ')[0]);
    expect(verbs).toEqual(expect.arrayContaining(['classify', 'ingest', 'label', 'import', 'retrain', 'promotions']));
    expect(verbs).toEqual(expect.arrayContaining(['approve', 'rollback']));
  });

  it.each(steps)('$ $command', async (step) => {
    const shown = normalised(step.output, ids.readme);
    const run = async () => {
      const { output, code } = await shell(step);
      return { code, output: cut(normalised(output, ids.printed), shown) };
    };
    const expected = { code: step.output.startsWith('fewloop: ') ? 1 : 0, output: shown };
    const deadline = Date.now() + (step.eventually ? EVENTUALLY_MS : 0);
    let answer = await run();
    while (!isDeepStrictEqual(answer, expected) && Date.now() < deadline) {
      await sleep(500);
      answer = await run();
    }
    expect(answer).toEqual(expected);
  });
});

it('ends with everything it started on Ctrl-C', async () => {
  const all = [start.pid!, ...descendants(start.pid!)];
  expect(all.length).toBeGreaterThan(4);
  process.kill(-start.pid!, 'SIGINT');
  await until(() => !all.some(isAlive), 30_000);
});
