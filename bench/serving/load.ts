/**
 * Two ways to load a server. Closed: so many connections, each sends its next request when the last is answered. Open:
 * requests arrive as they would (Poisson), whether or not the last were answered; latency counts from when a request was
 * due, so that a server that stalls cannot hide it. Requests of different connections are never the same.
 */
import autocannon from 'autocannon';
import { Agent, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Call {
  path: string;
  body: string;
  texts: number;
}

export interface Reply {
  /** When it came, milliseconds since the load began. */
  atMs: number;
  latencyMs: number;
  texts: number;
  status: number;
  body: string;
}

const DRAIN_MS = 30_000;
const HEADERS = { 'content-type': 'application/json' };

/** Calls are dealt to the connections in turn. */
export async function closedLoop(url: string, calls: Call[], connections: number, seconds: number): Promise<Reply[]> {
  const replies: Reply[] = [];
  const startedMs = performance.now();
  let next = 0;
  const load = autocannon(
    {
      url,
      connections,
      duration: 3600,
      timeout: 60,
      setupClient: (client) => {
        const first = next++;
        const own = calls.filter((_, i) => i % connections === first % connections);
        client.setRequests(
          own.map((call) => ({
            method: 'POST' as const,
            path: call.path,
            headers: HEADERS,
            body: call.body,
            setupRequest: (one, context) => {
              (context as { sentMs?: number }).sentMs = performance.now();
              return one;
            },
            onResponse: (status: number, body: string, context: object) => {
              const nowMs = performance.now();
              const latencyMs = nowMs - (context as { sentMs: number }).sentMs;
              replies.push({ atMs: nowMs - startedMs, latencyMs, texts: call.texts, status, body });
            },
          })),
        );
      },
    },
    () => undefined,
  );
  const ended = new Promise((resolve) => load.once('done', resolve));
  await sleep(seconds * 1000);
  load.stop();
  await ended;
  return replies;
}

/** Calls in order, from the first again where they do not suffice; status 0: no answer. */
export async function openLoop(url: string, calls: Call[], ratePerSecond: number, seconds: number): Promise<Reply[]> {
  const replies: Reply[] = [];
  const next = (i: number) => calls[i % calls.length]!;
  await arrivals(url, next, ratePerSecond, seconds, (reply) => replies.push(reply));
  return replies;
}

/** The same, each reply told and none kept. What is due while all connections wait for an answer waits for one of them. */
export async function arrivals(
  url: string,
  next: (i: number) => Call,
  ratePerSecond: number,
  seconds: number,
  each: (reply: Reply) => void,
  connections = Infinity,
): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const random = generator(1);
  const waiting = new Set<Promise<void>>();
  const startedMs = performance.now();
  let dueMs = 0;
  for (let i = 0; dueMs < seconds * 1000; i++) {
    const aheadMs = dueMs - (performance.now() - startedMs);
    if (aheadMs > 0) await sleep(aheadMs);
    const call = next(i);
    const due = dueMs;
    const done = post(agent, url, call).then(({ status, body }) => {
      const atMs = performance.now() - startedMs;
      each({ atMs, latencyMs: atMs - due, texts: call.texts, status, body });
      waiting.delete(done);
    });
    waiting.add(done);
    dueMs += (-Math.log(1 - random()) * 1000) / ratePerSecond;
  }
  await Promise.all(waiting);
  agent.destroy();
}

/** Status 0: no answer. */
export function post(agent: Agent, url: string, { path, body }: Call): Promise<{ status: number; body: string }> {
  return new Promise((resolve) => {
    const length = { 'content-length': Buffer.byteLength(body) };
    const options = { agent, method: 'POST', headers: { ...HEADERS, ...length }, timeout: DRAIN_MS };
    const sent = request(new URL(path, url), options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
      response.on('error', () => resolve({ status: 0, body: '' }));
    });
    sent.on('timeout', () => sent.destroy());
    sent.on('error', () => resolve({ status: 0, body: '' }));
    sent.end(body);
  });
}

/** Uniform in [0, 1), the same sequence each time (mulberry32). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The value below which `share` of the values lie (nearest rank). */
export function quantile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? NaN;
}
