/** A Fewloop service of the benchmark's own, started from the build, and the GraphQL requests that drive it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream, existsSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const root = resolve(import.meta.dirname, '../..');
const { serviceFlags } = (await import(join(root, 'scripts/prepare.mjs'))) as { serviceFlags: string[] };

export interface Service {
  url: string;
  pid: number;
  stop(): Promise<void>;
}

export async function startService(dataDir: string, environment: Record<string, string>): Promise<Service> {
  const file = join(dataDir, 'service.json');
  rmSync(file, { force: true });
  const log = createWriteStream(join(dataDir, 'service.log'), { flags: 'a' });
  const child: ChildProcess = spawn(process.execPath, [...serviceFlags, join(root, 'dist/src/main.js')], {
    cwd: root,
    env: { ...process.env, PORT: '0', FEWLOOP_DATA_DIR: dataDir, MALLOC_TRIM_THRESHOLD_: '131072', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout?.pipe(log);
  child.stderr?.pipe(log);
  const ended = new Promise<void>((done) => child.once('exit', () => done()));
  for (;;) {
    if (child.exitCode !== null) throw new Error(`the service ended at its start; see ${dataDir}/service.log`);
    const found = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8') || '{}') as { pid?: number; url?: string }) : {};
    if (found.pid === child.pid && found.url) {
      return {
        url: found.url,
        pid: child.pid!,
        stop: async () => {
          child.kill('SIGTERM');
          await ended;
        },
      };
    }
    await sleep(200);
  }
}

export async function query<T>(url: string, text: string, variables: Record<string, unknown> = {}): Promise<T> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query: text, variables }),
  });
  const { data, errors } = (await response.json()) as { data: T; errors?: { message: string; path?: unknown[] }[] };
  if (errors?.length) throw new Error(`${errors[0]?.message} at ${errors[0]?.path?.join('.') ?? text.slice(0, 60)}`);
  return data;
}

export interface EndedRun {
  state: string;
  error: string | null;
  produced: { version: number } | null;
}

/** Of a training run, once it has ended, however; `tell` hears of each look before. */
export async function runEnded(url: string, id: string, tell: (stage: string, progress: number) => void = () => {}): Promise<EndedRun> {
  const text = 'query ($id: ID!) { trainingRun(id: $id) { state stage progress error produced { version } } }';
  for (;;) {
    await sleep(1000);
    const { trainingRun: run } = await query<{ trainingRun: EndedRun & { stage: string | null; progress: number } }>(url, text, { id });
    if (run.state !== 'QUEUED' && run.state !== 'RUNNING') return run;
    tell(run.stage ?? run.state, run.progress);
  }
}

export async function* chunks<T>(items: T[], size: number): AsyncGenerator<T[]> {
  for (let start = 0; start < items.length; start += size) yield items.slice(start, start + size);
}
