/** Who is measured: how each is started, how it is asked for texts, how its answers are read, and its settings to try. */
import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { query, startService } from '../loop/service.ts';
import type { Call } from './load.ts';
import { tree } from './tree.ts';
import task from './task.json' with { type: 'json' };
import { root } from './texts.ts';

/** What a peer's framework is told: processes × threads, texts or requests of a batch, how long it waits for them. */
export type Setting = Record<'WORKERS' | 'THREADS' | 'BATCH' | 'WAIT_MS', number>;

export interface Server {
  url: string;
  pid: number;
  stop(): Promise<void>;
}

export interface Contestant {
  name: string;
  /** None: it is measured as it comes. */
  settings: Setting[];
  start(setting: Setting | undefined): Promise<Server>;
  call(texts: string[]): Call;
  /** Of each text, the probability of each label; throws where the body is no answer. */
  read(body: string): number[][];
  /** The 99th percentile of how late its event loop was since the last call, if it tells. */
  eventLoopP99Ms?(server: Server): Promise<number>;
}

export interface Places {
  model: string;
  /** For logs and data; made where it is not. */
  out: string;
  python: string;
  mlserverPython: string;
  /** Texts that a peer gives the graph at once: the limit's best. */
  rows: number;
}

/** Node's measure is of the interval of a timer, which has this one of its own. */
const EVENT_LOOP_TIMER_MS = 10;
const START_MS = 180_000;
const STOP_MS = 15_000;
export const PORT = 18_400;

const setting = (WORKERS: number, THREADS: number, BATCH: number, WAIT_MS: number) => ({ WORKERS, THREADS, BATCH, WAIT_MS });
const SETTINGS = [setting(2, 1, 8, 2), setting(2, 1, 32, 10), setting(1, 2, 16, 2), setting(1, 2, 64, 10)];

export function fewloop(out: string, environment: Record<string, string> = {}): Contestant {
  const q = `query ($inputs: [TextInput!]!) { classify(task: "${task.name}", inputs: $inputs) { label distribution { label probability } } }`;
  return {
    name: 'fewloop',
    settings: [],
    start: () => startFewloop(join(out, 'fewloop'), { FEWLOOP_CACHE_MB: '0', ...environment }),
    call: (texts) => ({
      path: '/graphql',
      body: JSON.stringify({ query: q, variables: { inputs: texts.map((text) => ({ text })) } }),
      texts: texts.length,
    }),
    read(body) {
      return distributionsOf(body).map((distribution) =>
        task.labels.map(({ name }) => distribution.find(({ label }) => label === name)!.probability),
      );
    },
    async eventLoopP99Ms({ url }) {
      const metrics = await (await fetch(new URL('/metrics', url))).text();
      return 1000 * Number(/^nodejs_eventloop_lag_p99_seconds (.+)$/mu.exec(metrics)?.[1]) - EVENT_LOOP_TIMER_MS;
    },
  };
}

/** The version that `bench/savings` trained in this data folder, by its student alone, in a precision that the service
 * takes by itself (`auto`) or is told. */
export function fewloopStudent(dataDir: string, precision: string): Contestant {
  const q = `query ($inputs: [TextInput!]!) {
    classify(task: "savings", inputs: $inputs, options: { policy: STUDENT }) { distribution { probability } } }`;
  const environment = { FEWLOOP_LOG_LEVEL: 'warn', FEWLOOP_CACHE_MB: '0', FEWLOOP_PRECISION: precision };
  return {
    ...fewloop(dataDir),
    name: `fewloop student (${precision})`,
    start: () => startService(dataDir, environment),
    call: (texts) => ({
      path: '/graphql',
      body: JSON.stringify({ query: q, variables: { inputs: texts.map((text) => ({ text })) } }),
      texts: texts.length,
    }),
    read: (body) => distributionsOf(body).map((distribution) => distribution.map(({ probability }) => probability)),
  };
}

interface Answer {
  data: { classify: { distribution: { label: string; probability: number }[] }[] };
  errors?: { message: string; extensions?: { code?: string } }[];
}

function distributionsOf(body: string): Answer['data']['classify'][number]['distribution'][] {
  const { data, errors } = JSON.parse(body) as Answer;
  if (errors?.length) throw new Error(errors[0]!.extensions?.code ?? errors[0]!.message);
  return data.classify.map(({ distribution }) => distribution);
}

/** With the task applied; its model loads with the first answer. */
export async function startFewloop(dataDir: string, environment: Record<string, string>): Promise<Server> {
  mkdirSync(dataDir, { recursive: true });
  const service = await startService(dataDir, { FEWLOOP_LOG_LEVEL: 'warn', ...environment });
  const definition = JSON.stringify(task);
  try {
    await query(service.url, 'mutation ($d: String!) { applyTask(definition: $d) { name } }', { d: definition });
  } catch (error) {
    await service.stop();
    throw error;
  }
  return service;
}

export function peers(places: Places): Contestant[] {
  const plain = {
    call: (texts: string[]) => ({ path: '/predict', body: JSON.stringify({ texts }), texts: texts.length }),
    read: (body: string) => (JSON.parse(body) as { distribution: number[] }[]).map((one) => one.distribution),
  };
  const peer = (name: string, program: string, python = places.python) => ({
    name,
    settings: SETTINGS,
    start: async (setting: Setting = SETTINGS[0]!) => startPeer(places, name, python, program, setting),
  });
  return [
    { ...peer('litserve', 'litserve_app.py'), ...plain },
    { ...peer('bentoml', 'bentoml_app.py'), ...plain },
    {
      ...peer('mlserver', 'mlserver_app.py', places.mlserverPython),
      call: (texts) => {
        const input = { name: 'texts', shape: [texts.length, 1], datatype: 'BYTES', data: texts };
        return { path: '/v2/models/bench/infer', body: JSON.stringify({ inputs: [input] }), texts: texts.length };
      },
      read: (body) => {
        const { outputs } = JSON.parse(body) as { outputs: { data: number[] }[] };
        const { data } = outputs[0]!;
        return Array.from({ length: data.length / 2 }, (_, i) => data.slice(2 * i, 2 * i + 2));
      },
    },
    { ...peer('ray', 'ray_app.py'), ...plain },
  ];
}

function startPeer(places: Places, name: string, python: string, program: string, of: Setting): Server {
  const settings = Object.entries({ ...of, MODEL: places.model, PORT, ROWS: places.rows });
  const environment = Object.fromEntries(settings.map(([key, value]) => [`BENCH_${key}`, String(value)]));
  return startProgram(places.out, name, [python, join(root, 'bench/serving/peers', program)], environment);
}

/** Whoever uses it waits for its first answer, at `PORT`. */
export function startProgram(out: string, name: string, program: string[], environment: Record<string, string>): Server {
  const [command = '', ...flags] = program;
  const child = spawn(command, flags, {
    env: { ...process.env, ...environment, MALLOC_TRIM_THRESHOLD_: '131072' },
    cwd: out, // some leave files where they run
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true, // a signal to the bench's group is not the peer's
  });
  const log = createWriteStream(join(out, `${name}.log`));
  child.stdout.pipe(log);
  child.stderr.pipe(log);
  const ended = new Promise<void>((done) => child.once('exit', () => done()));
  return {
    url: `http://127.0.0.1:${PORT}`,
    pid: child.pid!,
    /** Some leave processes behind when they are asked to end: those are known, and ended one by one. */
    async stop() {
      const all = tree(child.pid!);
      child.kill('SIGTERM');
      await Promise.race([ended, sleep(STOP_MS, undefined, { ref: false })]);
      await sleep(1000);
      for (const pid of all) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // ended already
        }
      }
      await ended;
    },
  };
}

/** Resolves with the probabilities of `texts` once the server answers; throws where it ends or never does. */
export async function firstAnswer(contestant: Contestant, server: Server, texts: string[]): Promise<number[][]> {
  const { path, body } = contestant.call(texts);
  const until = performance.now() + START_MS;
  for (;;) {
    try {
      const headers = { 'content-type': 'application/json' };
      const signal = AbortSignal.timeout(30_000);
      const response = await fetch(new URL(path, server.url), { method: 'POST', headers, body, signal });
      const text = await response.text();
      if (response.ok) return contestant.read(text);
    } catch {
      // not yet
    }
    if (performance.now() > until) throw new Error(`${contestant.name} did not answer within ${START_MS / 1000} s`);
    await sleep(250);
  }
}
