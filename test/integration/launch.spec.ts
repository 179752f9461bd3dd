import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { ProcessLauncher } from '../../src/launch/process.js';
import type { RunProgress } from '../../src/launch/run-folder.js';
import { isAlive, killTree, until } from '../fixtures/processes.js';

const FAKE = path.join(import.meta.dirname, '../fixtures/fake-trainer.mjs');

let folder: string;
let seen: RunProgress[];
let children: ChildProcess[];

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'fewloop-launch-'));
  writeFileSync(path.join(folder, 'run.json'), JSON.stringify({ task: 't', version: 2 }));
  seen = [];
  children = [];
});
afterEach(() => {
  children.forEach(killTree);
  rmSync(folder, { recursive: true, force: true });
});

function start(mode: string, options: { killAfterMs?: number; python?: string; begunWithinMs?: number } = {}) {
  const launcher = new ProcessLauncher({
    python: process.execPath,
    dataDir: folder,
    command: [FAKE, mode],
    ...options,
  });
  return launcher.start(folder, (progress) => seen.push(progress));
}

function trainerPid(): number {
  return Number(readFileSync(path.join(folder, 'trainer.pid'), 'utf8'));
}

describe('ProcessLauncher', () => {
  it('answers the result and every line of progress', async () => {
    await expect(start('succeed').done).resolves.toMatchObject({ ok: true, version: 2 });
    expect(seen.map(({ progress }) => progress)).toEqual([0.06, 0.2, 0.4, 0.6, 0.8, 1]);
  });

  it('hands on the reason that the trainer gives', async () => {
    await expect(start('refuse').done).resolves.toEqual({
      ok: false,
      code: 'TOO_FEW_ROWS',
      message: 'label negative has no row',
    });
  });

  it('does not have the trainer give its memory back at every step, as the service does', async () => {
    vi.stubEnv('MALLOC_TRIM_THRESHOLD_', '131072');
    await expect(start('tellTrimming').done).resolves.toMatchObject({ code: 'TOLD', message: 'none' });
    vi.unstubAllEnvs();
  });

  it('has the trainer stand behind the service where both want the processor', async () => {
    const behind = String(Math.min(os.getPriority() + 10, 19));
    await expect(start('tellPriority').done).resolves.toMatchObject({ code: 'TOLD', message: behind });
  });

  it('calls an end without a whole result a crash, with what was printed last', async () => {
    await expect(start('halfResult').done).resolves.toMatchObject({ ok: false, code: 'CRASHED' });
    const died = await start('dieAlways').done;
    expect(died).toMatchObject({ ok: false, code: 'CRASHED', message: expect.stringContaining('out of memory') });
    expect(died).toMatchObject({ message: expect.stringContaining('SIGKILL') });
  });

  it('does not take an earlier attempt’s result for this one’s', async () => {
    writeFileSync(path.join(folder, 'result.json'), JSON.stringify({ ok: true, version: 1, bundle: 'bundle' }));
    await expect(start('dieAlways').done).resolves.toMatchObject({ ok: false, code: 'CRASHED' });
  });

  it('stops a trainer that listens', async () => {
    const trainer = start('slow');
    await until(() => seen.length > 0);
    await trainer.stop();
    await expect(trainer.done).resolves.toMatchObject({ ok: false, code: 'STOPPED' });
  });

  it('kills a trainer that does not listen', async () => {
    const trainer = start('deaf', { killAfterMs: 300 });
    await until(() => seen.length > 0);
    const pid = trainerPid();
    await trainer.stop();
    await expect(trainer.done).resolves.toMatchObject({ ok: false, code: 'STOPPED' });
    expect(isAlive(pid)).toBe(false);
  });

  it('waits for the trainer environment, and stops waiting when asked', async () => {
    const stopped = start('succeed', { python: '' });
    await until(() => seen.some(({ stage }) => stage === 'waiting for the trainer environment'));
    await stopped.stop();
    await expect(stopped.done).resolves.toMatchObject({ code: 'STOPPED' });

    const served = start('succeed', { python: '' });
    const environment = { state: 'ready', python: process.execPath };
    writeFileSync(path.join(folder, 'trainer-env.json'), JSON.stringify(environment));
    await expect(served.done).resolves.toMatchObject({ ok: true });
  });

  it('does not wait for an environment that nobody installs', async () => {
    await expect(start('succeed', { python: '', begunWithinMs: 1 }).done).resolves.toEqual({
      ok: false,
      code: 'ENVIRONMENT',
      message: expect.stringContaining('not installed. `npm start` or `node scripts/trainer-env.mjs` installs it'),
    });
    writeFileSync(path.join(folder, 'trainer-env.json'), JSON.stringify({ state: 'installing', progress: 0 }));
    seen = [];
    const waiting = start('succeed', { python: '', begunWithinMs: 1 });
    await until(() => seen.length === 2);
    await waiting.stop();
    await expect(waiting.done).resolves.toMatchObject({ code: 'STOPPED' });
  });

  it('says so where the trainer cannot be started', async () => {
    const python = path.join(folder, 'no-python');
    await expect(start('succeed', { python }).done).resolves.toMatchObject({ ok: false });
    writeFileSync(
      path.join(folder, 'trainer-env.json'),
      JSON.stringify({ state: 'failed', message: 'no Python 3.11' }),
    );
    await expect(start('succeed', { python: '' }).done).resolves.toEqual({
      ok: false,
      code: 'ENVIRONMENT',
      message: 'no Python 3.11',
    });
  });

  it('tells the trainer whose child it is', async () => {
    const python = path.join(folder, 'python');
    writeFileSync(python, '#!/bin/sh\necho "$@"\n', { mode: 0o755 });
    await new ProcessLauncher({ python, dataDir: folder }).start(folder, () => undefined).done;
    const said = readFileSync(path.join(folder, 'trainer.log'), 'utf8');
    expect(said.trim()).toBe(`-m fewloop_trainer run --parent ${process.pid} ${folder}`);
    await new ProcessLauncher({ python, dataDir: folder, processes: 2 }).start(folder, () => undefined).done;
    const again = readFileSync(path.join(folder, 'trainer.log'), 'utf8').trim().split('\n');
    expect(again[1]).toBe(`-m fewloop_trainer run --parent ${process.pid} --processes 2 ${folder}`);
    await new ProcessLauncher({ python, dataDir: folder, processes: '' }).start(folder, () => undefined).done;
    const third = readFileSync(path.join(folder, 'trainer.log'), 'utf8').trim().split('\n');
    expect(third[2]).toBe(`-m fewloop_trainer run --parent ${process.pid} --processes auto ${folder}`);
  });

  it('ends the trainer that an earlier service left at the folder', async () => {
    const left = spawn(process.execPath, [FAKE, 'slow', folder], { stdio: 'ignore' });
    children.push(left);
    const gone = new Promise((resolve) => left.once('exit', resolve));
    writeFileSync(path.join(folder, 'trainer.pid'), String(left.pid));
    await until(() => existsSync(path.join(folder, 'progress.jsonl')));
    await expect(start('succeed').done).resolves.toMatchObject({ ok: true });
    await gone;
    expect(left.signalCode).toBe('SIGKILL');
  });

  it.skipIf(process.platform !== 'linux')('leaves no trainer when the service is killed', async () => {
    const script = path.join(folder, 'service.ts');
    const source = path.resolve(import.meta.dirname, '../../src/launch/process.ts');
    writeFileSync(
      script,
      `import { ProcessLauncher } from ${JSON.stringify(source)};
      new ProcessLauncher(${JSON.stringify({ python: process.execPath, dataDir: folder, command: [FAKE, 'slow'] })})
        .start(${JSON.stringify(folder)}, () => undefined);`,
    );
    const service = spawn(process.execPath, ['--import', loader(), '--experimental-transform-types', script], {
      stdio: 'inherit',
    });
    children.push(service);
    await until(() => existsSync(path.join(folder, 'progress.jsonl')));
    const pid = trainerPid();
    expect(isAlive(pid)).toBe(true);
    service.kill('SIGKILL');
    await until(() => !isAlive(pid));
  });
});

/** Node strips types but does not find x.ts under the name x.js. */
function loader(): string {
  const hook = `import { registerHooks } from 'node:module';
    registerHooks({
      resolve(specifier, context, next) {
        if (!specifier.startsWith('.') || context.parentURL.includes('/node_modules/')) return next(specifier, context);
        return next(specifier.replace(/\\.js$/, '.ts'), context);
      },
    });`;
  return `data:text/javascript,${encodeURIComponent(hook)}`;
}
