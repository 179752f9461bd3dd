/**
 * Without a suitable Python: one line that says what to install, and a state that training runs can tell. With one:
 * the trainer is found from any folder.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../..');
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-env-'));
  // A checkout of its own: the environment of this one may be there already.
  cpSync(join(ROOT, 'scripts'), join(folder, 'scripts'), { recursive: true });
  mkdirSync(join(folder, 'trainer'));
  cpSync(join(ROOT, 'trainer', 'requirements.txt'), join(folder, 'trainer', 'requirements.txt'));
  mkdirSync(join(folder, 'bin'));
  symlinkSync(process.execPath, join(folder, 'bin', 'node'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Stands in for an interpreter that answers the version probe so. */
function python(name: string, script: string): void {
  const file = join(folder, 'bin', name);
  writeFileSync(file, `#!/bin/sh\n${script}\n`);
  chmodSync(file, 0o755);
}

/** One that makes environments, and installs nothing into them. */
const MAKES_ENVIRONMENTS = `PATH=/usr/bin:/bin
case "$1 $2" in
  -c*) echo 3.11 ;;
  '-m venv') mkdir -p "$4/bin" "$4/lib/python3.11/site-packages" && cp "$0" "$4/bin/python" ;;
esac`;

function install(): { status: number | null; said: string; state: unknown } {
  const dataDir = join(folder, 'data');
  const { status, stdout, stderr } = spawnSync(
    join(folder, 'bin', 'node'),
    [join(folder, 'scripts', 'trainer-env.mjs')],
    { encoding: 'utf8', env: { PATH: join(folder, 'bin'), FEWLOOP_DATA_DIR: dataDir } },
  );
  return { status, said: stdout + stderr, state: JSON.parse(readFileSync(join(dataDir, 'trainer-env.json'), 'utf8')) };
}

it.each([
  ['none', () => undefined, /^No Python found\. Training needs Python 3\.11.*apt install.*brew install/mu],
  ['too old', () => python('python3', 'echo 3.9'), /^No suitable Python \(python3 is 3\.9\)\. Training needs/mu],
  ['without venv', () => python('python3', 'exit 1'), /^No suitable Python \(python3 lacks venv or is broken\)\./mu],
])('%s', (_, prepare, message) => {
  prepare();
  const { status, said, state } = install();
  expect(status).toBe(1);
  expect(said).toMatch(message);
  expect(said).toContain('Serving works without it.');
  expect(state).toMatchObject({ state: 'failed', message: expect.stringMatching(message) });
});

it('names the checkout’s trainer, also in an environment that was there before', () => {
  python('python3', MAKES_ENVIRONMENTS);
  const name = join(folder, '.venv', 'lib', 'python3.11', 'site-packages', 'fewloop.pth');
  for (let times = 0; times < 2; times++) {
    expect(install()).toMatchObject({ status: 0, state: { state: 'ready' } });
    expect(readFileSync(name, 'utf8')).toBe(`${join(folder, 'trainer')}\n`);
    rmSync(name);
  }
});
