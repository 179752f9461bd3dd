import { fork } from 'node:child_process';
import { afterEach, expect, it, vi } from 'vitest';
import { HostProcess } from './host-process.js';

vi.mock('node:child_process', async (original) => ({ ...(await original<object>()), fork: vi.fn<typeof fork>() }));

afterEach(() => vi.unstubAllEnvs());

it.each([
  ['cpu', undefined],
  ['cuda:0', '/opt/cuda'],
])('starts a host on %s with LD_LIBRARY_PATH %s', async (device, expected) => {
  vi.stubEnv('LD_LIBRARY_PATH', '/opt/cuda');
  vi.mocked(fork).mockImplementation(() => {
    throw new Error('started');
  });
  const events = { onFree: () => undefined, onGone: () => undefined };
  await expect(HostProcess.start([], { threads: 1, device }, events)).rejects.toThrow('started');
  const { env } = vi.mocked(fork).mock.lastCall!.at(-1) as { env: NodeJS.ProcessEnv };
  expect(env['LD_LIBRARY_PATH']).toBe(expected);
});
