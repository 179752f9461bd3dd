import dns from 'node:dns';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createTcpServer, type AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
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

describe('a connection', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
  });

  const tcp = async (scheme: string, respond?: RequestListener) => {
    const server = respond ? createServer(respond) : createTcpServer();
    await once(server.listen(0, '127.0.0.1'), 'listening');
    return { server, url: `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}` };
  };

  it.each(['http', 'https'])('that never comes about is given up after ten seconds: %s', async (scheme) => {
    // As an address that swallows connections, and of which a test can be sure: its name is looked up for ever.
    const { promise: connecting, resolve: lookedUp } = Promise.withResolvers<void>();
    vi.spyOn(dns, 'lookup').mockImplementation(() => lookedUp());
    const url = `${scheme}://swallows.test`;
    const asked = new Client(url, 'key').request('{ ok }');
    await connecting;
    // The request has its socket a tick later.
    await setImmediate();
    vi.advanceTimersByTime(9_999);
    expect(vi.getTimerCount()).toBe(1);
    vi.advanceTimersByTime(1);
    await expect(asked).rejects.toThrow(`no service answers at ${url} (ETIMEDOUT)`);
  });

  it('whose other end never shakes hands is given up too', async () => {
    const { server, url } = await tcp('https');
    const accepted = once(server, 'connection');
    const asked = new Client(url, 'key').request('{ ok }');
    await accepted;
    vi.advanceTimersByTime(10_000);
    await expect(asked).rejects.toThrow(`no service answers at ${url} (ETIMEDOUT)`);
    server.close();
  });

  it('that is there waits for the answer as long as it takes', async () => {
    const { promise: request, resolve: arrived } = Promise.withResolvers<ServerResponse>();
    const { server, url } = await tcp('http', (_, response) => arrived(response));
    const asked = new Client(url, 'key').request('{ ok }');
    const response = await request;
    expect(vi.getTimerCount()).toBe(0);
    response.end('{"data":{"ok":1}}');
    expect(await asked).toEqual({ ok: 1 });
    server.close();
  });

  it('that is refused leaves no timer, which would keep the command from its end', async () => {
    const { server, url } = await tcp('http');
    await once(server.close(), 'close');
    await expect(new Client(url, 'key').request('{ ok }')).rejects.toThrow('(ECONNREFUSED)');
    await vi.waitFor(() => expect(vi.getTimerCount()).toBe(0));
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
