/**
 * Within a minute: this service beside the limit of the machine, on made-up texts. Needs a build. Fails where an answer is
 * not the graph's, where a request fails, and where the service does a small part of what the machine can: something
 * is broken then, whatever the machine.
 *   npm run bench:smoke [-- --profile FOLDER]
 * `--profile` writes a CPU profile of the service's process under single-text requests there.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { fewloop } from './contestants.ts';
import { checkAnswers, limit, underLoad } from './measure.ts';
import { madeTexts, root, tokenize } from './texts.ts';

const { values } = parseArgs({ options: { profile: { type: 'string' } } });
const SECONDS = 6;
/** On a busy machine longer, until so many texts could have been answered: whole requests alone count. */
const LEAST_TEXTS = 600;
/** Of the limit; what is usual is 0.8 and more. */
const FLOOR = 0.2;
const startedMs = performance.now();
const texts = madeTexts(3000);
const model = join(root, 'models/base-zh');
const folder = mkdtempSync(join(tmpdir(), 'fewloop-smoke-'));
const profile = values.profile && resolve(values.profile);
if (profile) mkdirSync(profile, { recursive: true });
const options: Record<string, string> = profile ? { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profile}` } : {};
const contestant = fewloop(folder, options);
const program = [process.execPath, join(root, 'bench/serving/limit.ts')];
const setting = { batch: 8, sessions: 2, threads: 1 };

async function rows(name: string, some: string[]): Promise<string> {
  const file = join(folder, `${name}.json`);
  writeFileSync(file, JSON.stringify(await tokenize(model, some)));
  return file;
}

function problem(text: string): void {
  process.stderr.write(`${text}\n`);
  process.exitCode = 1;
}

try {
  const checked = texts.slice(0, 16);
  const checkedFile = await rows('checked', checked);
  const logits = (await limit([...program, '--scores'], [model, checkedFile], {}, 0)) as unknown as number[][];
  const all = await rows('all', texts.slice(0, 600));
  const before = await limit(program, [model, all], setting, SECONDS / 2);
  const seconds = Math.max(SECONDS, LEAST_TEXTS / before.textsPerSecond);
  const server = await contestant.start(undefined);
  const loads: [string, { connections: number; textsPerRequest: number }][] = [
    ['32 connections', { connections: 32, textsPerRequest: 1 }],
    ['64 texts a request', { connections: 4, textsPerRequest: 64 }],
  ];
  const found: [string, Awaited<ReturnType<typeof underLoad>>][] = [];
  try {
    await checkAnswers(contestant, server, checked, logits);
    for (const [name, load] of loads) {
      if (profile && load.textsPerRequest > 1) continue;
      found.push([name, await underLoad(contestant, server, texts, { ...load, warmSeconds: 2, seconds })]);
    }
  } finally {
    await server.stop();
  }
  const after = await limit(program, [model, all], setting, SECONDS / 2);
  const most = (before.textsPerSecond + after.textsPerSecond) / 2;
  process.stdout.write(`limit ${most.toFixed(0)} texts/s (${before.textsPerSecond.toFixed(0)}, ${after.textsPerSecond.toFixed(0)})\n`);
  for (const [name, { textsPerSecond, p99Ms, cpuSecondsPer1000, peakPssMib, failures }] of found) {
    const share = (textsPerSecond / most).toFixed(2);
    const figures = `p99 ${p99Ms.toFixed(0)} ms, ${cpuSecondsPer1000.toFixed(2)} CPU s per 1,000, ${peakPssMib.toFixed(0)} MiB`;
    process.stdout.write(`${name}: ${textsPerSecond.toFixed(0)} texts/s, ${share} of the limit; ${figures}; ${failures} failed\n`);
  }
  process.stdout.write(`answers are the graph's; ${((performance.now() - startedMs) / 1000).toFixed(0)} s\n`);
  for (const [name, { textsPerSecond, failures }] of found) {
    if (failures > 0) problem(`${name}: ${failures} requests failed`);
    if (!(textsPerSecond >= FLOOR * most)) problem(`${name}: less than ${FLOOR} of the limit`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
