import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { json } from 'node:stream/consumers';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createProgram } from '../program.js';

afterEach(() => vi.restoreAllMocks());

/** The texts that a service is asked about, where these pieces are the standard input. */
async function asked(...pieces: Buffer[]): Promise<string[]> {
  const texts: string[] = [];
  const server = createServer((request, response) => {
    void json(request).then((body) => {
      const { inputs } = (body as { variables: { inputs: { text: string }[] } }).variables;
      texts.push(...inputs.map(({ text }) => text));
      const answer = { labels: ['good'], confidence: 1, calibrated: true, route: 'ACCEPT' };
      return response.end(JSON.stringify({ data: { classify: inputs.map(() => answer) } }));
    });
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  vi.spyOn(process, 'stdin', 'get').mockReturnValue(Readable.from(pieces) as typeof process.stdin);
  vi.spyOn(process.stdout, 'write').mockReturnValue(true);
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    await createProgram().parseAsync(['node', 'fewloop', '--url', url, 'classify', 'reviews']);
  } finally {
    server.close();
  }
  return texts;
}

describe('fewloop classify', () => {
  it('takes a line of standard input for a text, whatever else a line may end with elsewhere', async () => {
    const input = '\ufeff一\u2028二\u2029三\r四\u0085五\r\n\n  \n\ufeff六\n七';
    const bytes = Buffer.from(input);
    const pieces = Array.from(bytes, (_, i) => bytes.subarray(i, i + 1));
    expect(await asked(...pieces)).toEqual(['一\u2028二\u2029三\r四\u0085五', '\ufeff六', '七']);
  });

  it('refuses what is no UTF-8', async () => {
    await expect(asked(Buffer.from([0xb0, 0xa1, 0x0a]))).rejects.toThrow('standard input is not UTF-8');
  });
});
