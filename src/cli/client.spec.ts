import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
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

describe('a request', () => {
  const asking = async (respond: RequestListener) => {
    const server = createServer(respond);
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const close = () => new Promise((done) => server.close(done));
    return { url, close, asked: new Client(url, 'key').request<{ ok: string }>('{ ok }') };
  };

  it('carries what it asks and the key, and has the answer whatever characters it is of', async () => {
    const respond = async (request: IncomingMessage, response: ServerResponse) => {
      const { query } = (await json(request)) as { query: string };
      const { authorization, 'content-type': type } = request.headers;
      const ok = [request.method, type, authorization, query, '好'.repeat(1e5)].join();
      response.end(JSON.stringify({ data: { ok } }));
    };
    const { asked, close } = await asking((request, response) => void respond(request, response));
    expect((await asked).ok).toBe(`POST,application/json,Bearer key,{ ok },${'好'.repeat(1e5)}`);
    await close();
  });

  it('that nobody takes is told from one whose answer is lost', async () => {
    const { url, asked, close } = await asking(
      (request) => void request.resume().on('end', () => request.socket.destroy()),
    );
    await expect(asked).rejects.toThrow(/ended before the answer \(ECONNRESET\); the service may still be at it/u);
    await close();
    const after = new Client(url, undefined).request('{ ok }');
    await expect(after).rejects.toThrow(`no service answers at ${url} (ECONNREFUSED)`);
    await expect(new Client('nowhere', undefined).request('{ ok }')).rejects.toThrow('(ERR_INVALID_URL)');
  });

  it('that a proxy gave up may still be at work', async () => {
    const { asked, close } = await asking((_, response) => void response.writeHead(504).end('<html>'));
    await expect(asked).rejects.toThrow(/answered 504: no answer in its time; the service may still be at it/u);
    await close();
  });
});

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
