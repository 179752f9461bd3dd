import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from 'vitest';
import { Client, Failure, patiently } from './client.js';

/** Answers each request with the next of `answers`, and its last one from then on. */
async function serving<T>(answers: object[], use: (url: string) => Promise<T>): Promise<T> {
  let next = 0;
  const server = createServer((_, response) => {
    response.end(JSON.stringify(answers[Math.min(next++, answers.length - 1)]));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  try {
    return await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    server.close();
  }
}

const failing = (code: string, retryAfterMs?: number) => ({
  data: null,
  errors: [{ message: 'no', extensions: { code, ...(retryAfterMs !== undefined && { retryAfterMs }) } }],
});

describe('patiently', () => {
  it('asks an overloaded service again, as late as it says', async () => {
    const waits: number[] = [];
    const started = performance.now();
    const answers = [failing('OVERLOADED', 40), failing('OVERLOADED', 60), { data: { ok: 1 } }];
    const data = await serving(answers, (url) =>
      patiently(
        () => new Client(url, undefined).request('{ ok }'),
        (seconds) => waits.push(seconds),
      ),
    );
    expect(data).toEqual({ ok: 1 });
    expect(waits).toEqual([1, 1]);
    expect(performance.now() - started).toBeGreaterThan(95);
  });

  it('gives up at once on any other failure', async () => {
    const asked = serving([failing('TASK_NOT_FOUND'), { data: { ok: 1 } }], (url) =>
      patiently(
        () => new Client(url, undefined).request('{ ok }'),
        () => expect.unreachable(),
      ),
    );
    await expect(asked).rejects.toEqual(new Failure('no', 'TASK_NOT_FOUND'));
  });
});
