/** One figure after another: a contestant under one load, the limit, ingest, overload. */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { query } from '../loop/service.ts';
import { firstAnswer, type Contestant, type Server, type Setting } from './contestants.ts';
import { closedLoop, openLoop, quantile, type Call, type Reply } from './load.ts';
import { cpuSeconds, tree, watchMemory } from './tree.ts';

export interface Load {
  /** Connections of a closed loop, or else arrivals a second. */
  connections?: number;
  ratePerSecond?: number;
  textsPerRequest: number;
  warmSeconds: number;
  seconds: number;
}

export interface Figures {
  textsPerSecond: number;
  p50Ms: number;
  p99Ms: number;
  p999Ms: number;
  cpuSecondsPer1000: number;
  peakPssMib: number;
  failures: number;
  eventLoopP99Ms?: number;
}

/** Log-odds of two labels. */
const logOdds = ([a = 0, b = 0]: number[]) => Math.log(a / b);
const SAME = 2e-3;

/**
 * Throws where the contestant does not compute what the graph does on `texts`: log-odds are the graph's, but for the
 * one offset that a task's priors add to all of them.
 */
export async function checkAnswers(contestant: Contestant, server: Server, texts: string[], logits: number[][]) {
  const found = await firstAnswer(contestant, server, texts);
  const off = found.map((row, i) => logOdds(row) - (logits[i]![0]! - logits[i]![1]!));
  const spread = Math.max(...off) - Math.min(...off);
  if (!(spread < SAME)) throw new Error(`${contestant.name} does not answer as the graph does: off by ${spread}`);
}

/** `texts` are used in turn, none twice unless they run out. */
export async function underLoad(contestant: Contestant, server: Server, texts: string[], load: Load): Promise<Figures> {
  const calls: Call[] = [];
  for (let i = 0; i + load.textsPerRequest <= texts.length; i += load.textsPerRequest) {
    calls.push(contestant.call(texts.slice(i, i + load.textsPerRequest)));
  }
  const { warmSeconds, seconds, connections, ratePerSecond } = load;
  const cpu: number[] = [];
  const memory = watchMemory(server.pid);
  let eventLoopP99Ms: number | undefined;
  const sample = async () => {
    for (const wait of [warmSeconds, seconds]) {
      await sleep(wait * 1000);
      cpu.push(cpuSeconds(tree(server.pid)));
      eventLoopP99Ms = await contestant.eventLoopP99Ms?.(server);
    }
  };
  const total = warmSeconds + seconds;
  const running = connections
    ? closedLoop(server.url, calls, connections, total)
    : openLoop(server.url, calls, ratePerSecond!, total);
  const [replies] = await Promise.all([running, sample()]);
  memory.stop();
  const counted = replies.filter(({ atMs }) => atMs >= warmSeconds * 1000 && atMs < total * 1000);
  // An open loop's late answers count as well, else a server that falls behind would look quick.
  const arrived = connections ? counted : replies.filter(({ atMs, latencyMs }) => atMs - latencyMs >= warmSeconds * 1000);
  const answered = (all: Reply[]) => all.filter((reply) => isAnswer(contestant, reply));
  const scored = answered(counted).reduce((sum, reply) => sum + reply.texts, 0);
  const good = answered(arrived);
  const latencies = good.map(({ latencyMs }) => latencyMs);
  return {
    textsPerSecond: scored / seconds,
    p50Ms: quantile(latencies, 0.5),
    p99Ms: quantile(latencies, 0.99),
    p999Ms: quantile(latencies, 0.999),
    cpuSecondsPer1000: (1000 * (cpu[1]! - cpu[0]!)) / scored,
    peakPssMib: Math.max(...memory.samples.map(([, mib]) => mib)),
    failures: arrived.length - good.length,
    ...(eventLoopP99Ms !== undefined && { eventLoopP99Ms }),
  };
}

function isAnswer(contestant: Contestant, { status, body, texts }: Reply): boolean {
  if (status !== 200) return false;
  try {
    return contestant.read(body).length === texts;
  } catch {
    return false;
  }
}

export interface LimitSetting {
  batch: number;
  sessions: number;
  threads: number;
}

export type LimitFigures = Pick<Figures, 'textsPerSecond' | 'cpuSecondsPer1000'> & { peakMib: number };

/** `program`: the interpreter and its script. */
export async function limit(program: string[], files: string[], setting: Partial<LimitSetting>, seconds: number) {
  const [command = '', ...script] = program;
  const flags = Object.entries({ ...setting, seconds }).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const { stdout } = await promisify(execFile)(command, [...script, ...files, ...flags], { maxBuffer: 2 ** 26 });
  return JSON.parse(stdout) as LimitFigures;
}

/**
 * All texts by `ingest`, until the last is scored. The first of them only make the service match its priors, which it
 * does once in a task's life.
 */
export async function ingest(server: Server, task: string, texts: string[], seconds: number): Promise<Figures> {
  const send = async (some: string[]) => {
    const inputs = some.map((text) => ({ id: randomUUID(), text }));
    const text = 'mutation ($task: String!, $inputs: [TextInput!]!) { ingest(task: $task, inputs: $inputs) { accepted } }';
    for (let i = 0; i < inputs.length; i += 500) await query(server.url, text, { task, inputs: inputs.slice(i, i + 500) });
  };
  const stats = async () => {
    const { task: found } = await query<{
      task: {
        activeVersion: { version: number };
        stream: { pending: number; scored: number };
        pool: { outdated: number };
      };
    }>(
      server.url,
      `{ task(name: "${task}") { activeVersion { version } stream { pending scored } pool { outdated } } }`,
    );
    return found;
  };
  const MATCHED = 400;
  await send(texts.slice(0, MATCHED));
  const isSettled = async () => {
    const { activeVersion, stream, pool } = await stats();
    // Candidates are scored anew by the version that the priors made.
    return activeVersion.version > 1 && stream.pending === 0 && pool.outdated === 0;
  };
  while (!(await isSettled())) await sleep(500);
  const own = texts.slice(MATCHED);
  const before = (await stats()).stream.scored;
  const memory = watchMemory(server.pid);
  const cpu = cpuSeconds(tree(server.pid));
  const startedMs = performance.now();
  await send(own);
  let done = 0;
  // The pool is not asked: its outdated candidates are counted in the database.
  const scored = async () => {
    const { task: found } = await query<{ task: { stream: { scored: number } } }>(
      server.url,
      `{ task(name: "${task}") { stream { scored } } }`,
    );
    return found.stream.scored;
  };
  while (done < own.length && performance.now() - startedMs < seconds * 1000) {
    await sleep(200);
    done = (await scored()) - before;
  }
  const tookSeconds = (performance.now() - startedMs) / 1000;
  memory.stop();
  return {
    textsPerSecond: done / tookSeconds,
    p50Ms: NaN,
    p99Ms: NaN,
    p999Ms: NaN,
    cpuSecondsPer1000: (1000 * (cpuSeconds(tree(server.pid)) - cpu)) / done,
    peakPssMib: Math.max(...memory.samples.map(([, mib]) => mib)),
    failures: 0,
  };
}

export interface Overload {
  ratePerSecond: number;
  seconds: number;
  deadlineMs: number;
  /** Of all that arrived: texts that were answered, refused, dropped at their deadline, and what else came. */
  outcomes: Record<string, number>;
  answeredP99Ms: number;
  /** Answered later than the deadline, by the client's clock. */
  late: number;
  refusedP50Ms: number;
  refusedP99Ms: number;
  /** Mean of the second and the last quarter of the time. */
  pssMibSecondQuarter: number;
  pssMibLastQuarter: number;
}

/** Single-text requests with a deadline, more than can be answered. */
export async function overload(
  contestant: Contestant,
  server: Server,
  texts: string[],
  { ratePerSecond, seconds, deadlineMs }: Pick<Overload, 'ratePerSecond' | 'seconds' | 'deadlineMs'>,
): Promise<Overload> {
  const calls = texts.map((text) => {
    const call = contestant.call([text]);
    return { ...call, body: call.body.replace('inputs: $inputs', `inputs: $inputs, options: { deadlineMs: ${deadlineMs} }`) };
  });
  const memory = watchMemory(server.pid);
  const replies = await openLoop(server.url, calls, ratePerSecond, seconds);
  memory.stop();
  const byOutcome = Map.groupBy(replies, ({ status, body }) => {
    try {
      contestant.read(body);
      return 'answered';
    } catch (error) {
      return status === 200 ? (error as Error).message : `status ${status}`;
    }
  });
  const ms = (outcome: string) => (byOutcome.get(outcome) ?? []).map(({ latencyMs }) => latencyMs);
  const pss = (from: number, to: number) => {
    const within = memory.samples.filter(([at]) => at >= from * seconds && at < to * seconds).map(([, mib]) => mib);
    return within.reduce((sum, mib) => sum + mib, 0) / within.length;
  };
  return {
    ratePerSecond,
    seconds,
    deadlineMs,
    outcomes: Object.fromEntries([...byOutcome].map(([outcome, all]) => [outcome, all.length])),
    answeredP99Ms: quantile(ms('answered'), 0.99),
    late: ms('answered').filter((latency) => latency > deadlineMs).length,
    refusedP50Ms: quantile(ms('OVERLOADED'), 0.5),
    refusedP99Ms: quantile(ms('OVERLOADED'), 0.99),
    pssMibSecondQuarter: pss(0.25, 0.5),
    pssMibLastQuarter: pss(0.75, 1),
  };
}

export function settingName(setting: Setting | undefined): string {
  if (!setting) return 'as it comes';
  return `${setting.WORKERS}×${setting.THREADS}, batch ${setting.BATCH}, ${setting.WAIT_MS} ms`;
}
