/** The embedded PostgreSQL through the ends it may meet. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/storage/embedded-postgres.js';
import { isAlive, until } from '../fixtures/processes.js';

let folder: string;
let server: EmbeddedPostgres | undefined;
let elsewhere: ChildProcess | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-embedded-'));
  chmodSync(folder, 0o755);
});
afterEach(async () => {
  if (elsewhere) killGroup(elsewhere);
  elsewhere = undefined;
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

it('keeps its data over a restart, and leaves no process', async () => {
  server = await startEmbeddedPostgres({ dir: join(folder, 'data') });
  await query(server.url, 'CREATE TABLE kept AS SELECT 7 AS value');
  const pid = server.pid()!;
  await server.stop();
  expect(isAlive(pid)).toBe(false);
  server = await startEmbeddedPostgres({ dir: join(folder, 'data') });
  expect(await query(server.url, 'SELECT value FROM kept')).toEqual([{ value: 7 }]);
});

it('is started again at the same address when it is killed', async () => {
  server = await startEmbeddedPostgres({ dir: join(folder, 'data') });
  const { url } = server;
  await query(url, 'CREATE TABLE kept AS SELECT 7 AS value');
  const pid = server.pid()!;
  process.kill(pid, 'SIGKILL');
  await vi.waitFor(async () => expect(await query(url, 'SELECT value FROM kept')).toEqual([{ value: 7 }]), {
    timeout: 20_000,
    interval: 200,
  });
  expect(server.pid()).not.toBe(pid);
});

/** Another process that starts the server, and does nothing else; a group with what it starts. */
function startElsewhere(dir: string) {
  const source = join(import.meta.dirname, '../../src/storage/embedded-postgres.ts');
  const script = `import { registerHooks } from 'node:module';
    // Node strips types but does not find x.ts under the name x.js.
    registerHooks({ resolve: (name, context, next) =>
      next(name.startsWith('.') && context.parentURL?.endsWith('.ts') ? name.replace(/\\.js$/, '.ts') : name, context) });
    const { startEmbeddedPostgres } = await import(${JSON.stringify(source)});
    const server = await startEmbeddedPostgres({ dir: ${JSON.stringify(dir)} });
    console.log(server.pid() + ' ' + server.url);
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
  elsewhere = child;
  const started = new Promise<{ pid: number; url: string }>((resolve) => {
    child.stdout.once('data', (data: Buffer) => {
      const [pid, url] = data.toString().trim().split(' ');
      resolve({ pid: Number(pid), url: url! });
    });
  });
  return { child, started };
}

/** What is left of it: the server may be there when the process is not. */
function killGroup(child: ChildProcess): void {
  try {
    process.kill(-child.pid!, 'SIGKILL');
  } catch {
    // It is gone as a whole.
  }
}

async function kill(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

it('ends with a process that is killed, and its folder is taken over', async () => {
  const dir = join(folder, 'data');
  server = await startEmbeddedPostgres({ dir });
  await query(server.url, 'CREATE TABLE kept AS SELECT 7 AS value');
  await server.stop();
  const { child, started } = startElsewhere(dir);
  const { pid } = await started;
  await kill(child);
  server = await startEmbeddedPostgres({ dir });
  expect(await query(server.url, 'SELECT value FROM kept')).toEqual([{ value: 7 }]);
  expect(isAlive(pid)).toBe(false);
});

it('is made anew where the first start was killed over it', async () => {
  const dir = join(folder, 'data');
  // Killed with all below it, so that initdb cannot clear up after itself.
  const { child } = startElsewhere(dir);
  const begun = [dir, `${dir}.partial`].map((one) => join(one, 'PG_VERSION'));
  await until(() => begun.some((file) => existsSync(file)));
  process.kill(-child.pid!, 'SIGKILL');
  await once(child, 'exit');
  server = await startEmbeddedPostgres({ dir });
  expect(await query(server.url, 'SELECT 7 AS value')).toEqual([{ value: 7 }]);
  expect(readdirSync(folder)).toEqual(['data']);
});

it('leaves the server of a process that lives alone, until that is gone', async () => {
  const dir = join(folder, 'data');
  const { child, started } = startElsewhere(dir);
  const { url } = await started;
  await expect(startEmbeddedPostgres({ dir })).rejects.toThrow(
    `(process ${child.pid}) starts or ends in ${folder}: wait for it`,
  );
  expect(await query(url, 'SELECT 7 AS value')).toEqual([{ value: 7 }]);
  await kill(child);
  server = await startEmbeddedPostgres({ dir });
  expect(await query(server.url, 'SELECT 7 AS value')).toEqual([{ value: 7 }]);
});
