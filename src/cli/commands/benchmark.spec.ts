import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { until } from '../../../test/fixtures/processes.js';
import { Failure } from '../client.js';
import { createProgram } from '../program.js';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-benchmark-'));
  vi.stubEnv('FEWLOOP_DATA_DIR', join(folder, 'data'));
});
afterEach(() => {
  vi.unstubAllEnvs();
  process.exitCode = undefined;
  rmSync(folder, { recursive: true, force: true });
});

/** Stands in for Python: notes its arguments and where it looks for the trainer, then does what the script says. */
function python(script: string): void {
  const file = join(folder, 'python');
  writeFileSync(file, `#!/bin/sh\nprintf '%s\\n' "$PYTHONPATH" "$@" > ${folder}/told\n${script}\n`);
  chmodSync(file, 0o755);
  vi.stubEnv('FEWLOOP_PYTHON', file);
}

const fewloop = (...args: string[]) => createProgram().parseAsync(['node', 'fewloop', ...args]);
const told = () => readFileSync(join(folder, 'told'), 'utf8').trimEnd().split('\n');

describe('fewloop benchmark', () => {
  it("starts the trainer's command with the options that were given", async () => {
    python('exit 0');
    await fewloop(
      '--json',
      'benchmark',
      'some/data',
      '--tasks',
      'bustm,csl',
      '--limit-test',
      '5',
      '--base',
      'b',
      '--finished',
    );
    const [path, ...args] = told();
    expect(path).toMatch(/\/trainer$/u);
    const trainer = '-m fewloop_trainer benchmark some/data --base b --work'.split(' ');
    const rest = `--tasks bustm,csl --limit-test 5 --finished --parent ${process.pid} --json`.split(' ');
    expect(args).toEqual([...trainer, join(folder, 'data', 'benchmark'), ...rest]);
    expect(process.exitCode).toBe(0);
  });

  it.each([1, 2])('ends as the trainer did: %i', async (status) => {
    python(`exit ${status}`);
    await fewloop('benchmark', 'data');
    expect(process.exitCode).toBe(status);
  });

  it('hands signals on and waits for the end', async () => {
    python(`trap 'echo stopped >> ${folder}/told; exit 1' TERM; touch ${folder}/ready; while :; do sleep 0.05; done`);
    const ended = fewloop('benchmark', 'data');
    await until(() => existsSync(join(folder, 'ready')));
    process.emit('SIGTERM');
    await ended;
    expect(told().at(-1)).toBe('stopped');
    expect(process.exitCode).toBe(1);
    expect(process.listenerCount('SIGTERM')).toBe(0);
  });

  it('says how to come by an environment that is not there', async () => {
    vi.stubEnv('FEWLOOP_PYTHON', '');
    await expect(fewloop('benchmark', 'data')).rejects.toThrow(/environment: not installed\. `npm start` or/u);
    vi.stubEnv('FEWLOOP_PYTHON', join(folder, 'nowhere'));
    await expect(fewloop('benchmark', 'data')).rejects.toEqual(
      new Failure(`cannot start ${join(folder, 'nowhere')}`, 'ENVIRONMENT'),
    );
  });

  it('is refused without a folder', async () => {
    await expect(fewloop('benchmark')).rejects.toMatchObject({ code: 'commander.missingArgument' });
  });
});
