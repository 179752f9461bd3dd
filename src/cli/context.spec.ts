import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { runCommand } from '../../test/fixtures/command.js';
import { contextOf } from './context.js';
import { createProgram } from './program.js';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-context-'));
  for (const name of ['given', 'set']) writeFileSync(file(name), `key of the file ${name}\n`);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

const file = (name: string) => join(folder, name);

async function keyFor(environment: Record<string, string>, ...options: string[]): Promise<string | undefined> {
  for (const name of ['FEWLOOP_TOKEN', 'FEWLOOP_TOKEN_FILE']) vi.stubEnv(name, environment[name]);
  let seen: string | undefined;
  await runCommand(
    ({ authorization }) => ((seen = authorization), { data: { tasks: [] } }),
    ...options,
    'task',
    'list',
  );
  return seen?.replace('Bearer ', '');
}

it('an option beats the environment, and a key its file', async () => {
  const both = { FEWLOOP_TOKEN: 'key', FEWLOOP_TOKEN_FILE: file('set') };
  expect(await keyFor({})).toBeUndefined();
  expect(await keyFor(both)).toBe('key');
  expect(await keyFor(both, '--token-file', file('given'))).toBe('key of the file given');
  expect(await keyFor(both, '--token', 'mine')).toBe('mine');
  expect(await keyFor(both, '--token', 'mine', '--token-file', file('given'))).toBe('mine');
});

it('empty is not set', async () => {
  expect(await keyFor({ FEWLOOP_TOKEN: '', FEWLOOP_TOKEN_FILE: file('set') })).toBe('key of the file set');
  expect(await keyFor({ FEWLOOP_TOKEN: 'key', FEWLOOP_TOKEN_FILE: '' })).toBe('key');
  expect(await keyFor({ FEWLOOP_TOKEN: '', FEWLOOP_TOKEN_FILE: '' })).toBeUndefined();
  vi.stubEnv('FEWLOOP_URL', '');
  const command = createProgram();
  await command.action(() => undefined).parseAsync(['node', 'fewloop']);
  expect(contextOf(command).client.url).toBe('http://127.0.0.1:3000/graphql');
});
