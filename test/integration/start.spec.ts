/** `npm start` in a checkout of its own, with a service that listens and answers no GraphQL, as roles stream and trainer. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { killTree } from '../fixtures/processes.js';

const ROOT = resolve(import.meta.dirname, '../..');
const SERVICE = `
const { createServer } = require('node:http');
const { writeFileSync } = require('node:fs');
const server = createServer((request, response) => response.writeHead(404).end('{}'));
server.listen(0, '127.0.0.1', () => {
  const url = \`http://127.0.0.1:\${server.address().port}/graphql\`;
  writeFileSync(process.env.FEWLOOP_DATA_DIR + '/service.json', JSON.stringify({ pid: process.pid, url }));
});
process.on('SIGTERM', () => process.exit(0));
`;
let folder: string;
let started: ChildProcess | undefined;

function write(name: string, text: string): void {
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), text);
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-start-'));
  cpSync(join(ROOT, 'scripts'), join(folder, 'scripts'), { recursive: true });
  for (const empty of ['src', 'migrations', 'data']) mkdirSync(join(folder, empty));
  // Installed, and what is built is there.
  write('package-lock.json', '{}');
  write('node_modules/.fewloop-lock', createHash('sha256').update('{}').digest('hex'));
  write('node_modules/@nestjs/cli/bin/nest.js', '');
  mkdirSync(join(folder, 'node_modules/node/bin'), { recursive: true });
  symlinkSync(process.execPath, join(folder, 'node_modules/node/bin/node'));
  write('dist/src/main.js', SERVICE);
});
afterEach(() => {
  if (started) killTree(started);
  started = undefined;
  rmSync(folder, { recursive: true, force: true });
});

it.each(['stream', 'trainer'])('role %s serves until it is interrupted, and names its health', async (role) => {
  const start = spawn(process.execPath, [join(folder, 'scripts/start.mjs')], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { FEWLOOP_ROLE: role, FEWLOOP_DATA_DIR: join(folder, 'data'), FEWLOOP_PYTHON: 'none' },
  });
  started = start;
  const exited = once(start, 'exit');
  const said: string[] = [];
  for await (const line of createInterface({ input: start.stderr })) {
    said.push(line);
    if (line.startsWith('Health ')) break;
  }
  expect(said.at(-1)).toMatch(/^Health {3}http:\/\/127\.0\.0\.1:\d+\/health\/ready$/u);
  start.kill('SIGTERM');
  expect(await exited).toEqual([0, null]);
});
