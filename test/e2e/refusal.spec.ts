/** The service as built, asked for what it cannot have: it ends at once and says which variable to change. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const MAIN = new URL('../../dist/src/main.js', import.meta.url).pathname;

it.each([
  [{ FEWLOOP_DEVICE: 'cuda' }, /^fewloop: FEWLOOP_DEVICE=cuda: .*CUDA/u],
  [{ FEWLOOP_DEVICE: 'cuda:0,77' }, /^fewloop: FEWLOOP_DEVICE=cuda:0,77: this machine has no CUDA device .*77/u],
  [{ FEWLOOP_DEVICE: 'gpu', PORT: 'x' }, /PORT=x.*\nFEWLOOP_DEVICE=gpu: must be cpu or cuda/u],
  [{ FEWLOOP_HOST: '0.0.0.0' }, /^fewloop: FEWLOOP_AUTH=none is for loopback addresses alone/u],
])('%o: refused before anything is made', async (env, message) => {
  expect(existsSync(MAIN)).toBe(true);
  const dataDir = join(tmpdir(), `fewloop-refused-${process.pid}`);
  const { code, err } = await new Promise<{ code: unknown; err: string }>((resolve) => {
    const options = { env: { ...process.env, FEWLOOP_DATA_DIR: dataDir, ...env }, timeout: 20_000 };
    execFile(process.execPath, [MAIN], options, (error, _, stderr) => resolve({ code: error?.code, err: stderr }));
  });
  expect(code).toBe(1);
  expect(err).toMatch(message);
  expect(err).not.toContain('    at ');
  expect(existsSync(dataDir)).toBe(false);
});
