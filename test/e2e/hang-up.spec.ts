/** A client that closes its connection before the answer: what it asked leaves the queue, and others keep their place. */
import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import { HostLease } from '../../src/runtime/host-pool.js';
import { reviewsTask } from '../fixtures/reviews.js';
import { scrape } from '../fixtures/scrape.js';
import { type Service, startService } from '../fixtures/service.js';

const TASK = reviewsTask('reviews');
const APPLY = 'mutation ($definition: String!) { applyTask(definition: $definition) { name } }';
const CLASSIFY = 'query ($inputs: [TextInput!]!) { classify(task: "reviews", inputs: $inputs) { label } }';

/** More than two batches with the one host, at any budget. */
const inputs = Array.from({ length: 256 }, (_, i) => ({ text: `第${i}条`.padEnd(60, '好') }));

let service: Service;

beforeAll(async () => {
  service = await startService({ FEWLOOP_MAX_BATCH_TOKENS: '512', FEWLOOP_CACHE_MB: '0' });
  await service.request(APPLY, { definition: TASK });
  await service.request(CLASSIFY, { inputs: inputs.slice(0, 1) });
});
afterEach(() => vi.restoreAllMocks());
afterAll(() => service?.close());

const told = async (name: string, labels = {}) => (await scrape(service.url)).sum(name, labels);

/** Hosts get nothing to do until it is let go. */
function hold() {
  let letGo = (): void => undefined;
  const gate = new Promise<void>((resolve) => (letGo = resolve));
  const run = HostLease.prototype.run;
  const asked = vi.spyOn(HostLease.prototype, 'run').mockImplementation(async function (this: HostLease, batch) {
    await gate;
    return run.call(this, batch);
  });
  return { letGo, asked };
}

function post(socket: Socket, body: string): void {
  socket.write(
    `POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

it('is not computed for', async () => {
  const { letGo, asked } = hold();
  const socket = connect(Number(new URL(service.url).port), '127.0.0.1');
  post(socket, JSON.stringify({ query: CLASSIFY, variables: { inputs } }));
  await expect.poll(() => asked.mock.calls.length).toBe(2);
  const queued = await told('fewloop_queue_tokens');
  const stays = service.request(CLASSIFY, { inputs: inputs.slice(-2) });
  await expect.poll(() => told('fewloop_queue_tokens')).toBeGreaterThan(queued);

  socket.destroy();
  // What is with the host, and the two texts of who stays: they were also asked by who left.
  await expect.poll(() => told('fewloop_queue_tokens')).toBeLessThan(queued / 4);
  letGo();
  expect(await stays).toMatchObject({ classify: [{ label: expect.any(String) }, { label: expect.any(String) }] });
  expect(asked).toHaveBeenCalledTimes(3);
  await expect.poll(() => told('fewloop_queue_tokens')).toBe(0);
  expect(await told('fewloop_errors_total', { code: 'CANCELLED' })).toBe(inputs.length);
  expect(await told('fewloop_requests_total', { operation: 'classify', code: 'CANCELLED' })).toBe(1);
});

it('is told of by each request that stood on the connection, the answered ones left as they are', async () => {
  const before = await told('fewloop_requests_total', { code: 'CANCELLED' });
  const socket = connect(Number(new URL(service.url).port), '127.0.0.1');
  const ask = () => post(socket, JSON.stringify({ query: CLASSIFY, variables: { inputs: inputs.slice(0, 40) } }));
  const answered = new Promise((resolve) => socket.once('data', resolve));
  ask();
  await answered;
  const { letGo, asked } = hold();
  ask();
  ask();
  await expect.poll(() => asked.mock.calls.length).toBe(2);
  await expect.poll(() => told('fewloop_queue_tokens')).toBeGreaterThan(2 * 40 * 60);
  socket.destroy();
  await expect.poll(() => told('fewloop_requests_total', { code: 'CANCELLED' })).toBe(before + 2);
  letGo();
  await expect.poll(() => told('fewloop_queue_tokens')).toBe(0);
  expect(asked).toHaveBeenCalledTimes(2);
});
