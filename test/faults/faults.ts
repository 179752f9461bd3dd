/** Faults by name. Each happens to a run under load, and is over when it resolves; what it did shows in the verdict. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { inject } from 'vitest';
import type { WorkerProcess } from '../fixtures/kafka-worker.js';
import { descendants } from '../fixtures/processes.js';
import { SESSION_MS, type Run } from './harness.js';

/** Uniform numbers in [0, 1). */
export type Random = () => number;

/** `awayMs`: how long what goes away is away. */
type Fault = (run: Run, random: Random, awayMs: number) => Promise<void>;

const POINTS = ['fetch', 'begin', 'send', 'offsets', 'commit'];
const SLOW_MS = 300;

export const FAULTS: Record<string, Fault> = {
  'killed at a point': async (run, random) => {
    run.start(`SIGKILL:${pick(POINTS, random)}:${1 + Math.floor(random() * 3)}`);
  },
  'stopped and woken': async (run, random) => {
    const worker = pick(run.workers, random);
    worker.signal('SIGSTOP');
    await sleep(SESSION_MS + 2000);
    worker.signal('SIGCONT');
  },
  joining: async (run) => void run.start(),
  leaving: async (run, random) => pick(run.workers, random).signal('SIGTERM'),
  killed: async (run, random) => pick(run.workers, random).signal('SIGKILL'),
  'model host killed': async (run, random) => {
    const host = pick(descendants(pick(run.workers, random).pid), random);
    if (host !== undefined) process.kill(host, 'SIGKILL');
  },
  'broker ended': ({ cluster }) => cluster.restart('SIGTERM'),
  'broker killed': ({ cluster }) => cluster.restart('SIGKILL'),
  'broker away': ({ cluster }, _, awayMs) => cluster.restart('SIGTERM', awayMs),
  'disk full': async ({ cluster }, _, awayMs) => {
    if (cluster.disk) await cluster.diskFull(cluster.disk, awayMs);
  },
  'database away': databaseAway,
  'network cut': async ({ cluster: { network } }, _, awayMs) => {
    network.cut();
    await sleep(awayMs);
    network.mend();
  },
  'network silent': async ({ cluster: { network } }, _, awayMs) => {
    network.silence();
    await sleep(awayMs);
    network.mend();
  },
  'network slow': async ({ cluster: { network } }, _, awayMs) => {
    network.delay(SLOW_MS);
    await sleep(awayMs);
    network.mend();
  },
  // Of one worker, not of its neighbours.
  'clock jumps': async (run, random) => pick(run.workers, random).signal('SIGUSR2'),
  swap: (run) => run.applyTask(),
  // Without a second version there is nothing to go back to.
  rollback: async ({ service }) =>
    void (await service.ask('mutation { rollback(task: "tiny", reason: "a fault") { version } }')),
};

/** Uniform numbers in [0, 1) that depend on the seed alone (mulberry32). */
export function randomOf(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Undefined of an empty list. */
export function pick<T>(list: readonly T[], random: Random): T {
  return list[Math.floor(random() * list.length)]!;
}

/** Joins of a third worker and leaves, in turn. */
export async function comeAndGo(run: Run, turns: number, everyMs: number): Promise<void> {
  for (let turn = 0; turn < turns; turn++) {
    const oldest: WorkerProcess = run.workers[0]!;
    if (turn % 2 === 0) run.start();
    else oldest.signal('SIGTERM');
    await sleep(everyMs);
  }
}

async function databaseAway({ database }: Run, _: Random, awayMs: number): Promise<void> {
  const admin = new Client({ connectionString: inject('postgresUrl') });
  await admin.connect();
  const name = database.pathname.slice(1);
  await admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
  await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [name]);
  await sleep(awayMs);
  await admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
  await admin.end();
}
