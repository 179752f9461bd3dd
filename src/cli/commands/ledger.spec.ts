import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createProgram } from '../program.js';

afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

/** Of a service that finds this. */
async function verify(finding: object, ...options: string[]): Promise<{ out: string; err: string }> {
  const server = createServer((_, response) => response.end(JSON.stringify({ data: { verifyLedger: finding } })));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const said = { out: '', err: '' };
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => ((said.out += String(text)), true));
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => ((said.err += String(text)), true));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    await createProgram().parseAsync([
      'node',
      'fewloop',
      '--url',
      url,
      ...options,
      'ledger',
      'verify',
      '--hash',
      'abc',
    ]);
  } finally {
    server.close();
  }
  return said;
}

const HOLDS = { entries: 3, brokenAt: null, lastHash: 'abc', contains: true };

describe('fewloop ledger verify', () => {
  it.each([
    ['broken', { ...HOLDS, entries: 1, brokenAt: '2', contains: null }, 'entry 2 is not what was written'],
    ['cut off', { ...HOLDS, contains: false }, 'abc is not in the chain'],
  ])(
    'fails on a chain that is %s, with --json too, where the finding is all that is printed',
    async (_, finding, why) => {
      const plain = await verify(finding);
      expect([plain.out, process.exitCode]).toEqual(['', 1]);
      expect(plain.err).toContain(`fewloop: ${why}`);
      process.exitCode = undefined;
      const { out, err } = await verify(finding, '--json');
      expect([JSON.parse(out), process.exitCode]).toEqual([finding, 1]);
      expect(err).toContain(why);
    },
  );

  it('says that a whole one holds', async () => {
    expect((await verify(HOLDS)).out).toBe('3 entries hold; the last hash is abc\n');
    expect(JSON.parse((await verify(HOLDS, '--json')).out)).toEqual(HOLDS);
    expect(process.exitCode).toBeUndefined();
  });
});
