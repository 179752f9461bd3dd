/** From a caller's or a record's `traceparent` through batch and model host to the output's: seen by a collector of the test. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startTracing } from '../../src/common/tracing/sdk.js';
import { taskFile } from '../fixtures/intake.js';
import { openTopics, unique, type Topics } from '../fixtures/kafka.js';
import { type Service, startService } from '../fixtures/service.js';

interface Span {
  name: string;
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  links?: { traceId: string }[];
}

interface Exported {
  resourceSpans: { scopeSpans: { spans: Span[] }[] }[];
}

const CALLER = { trace: '0af7651916cd43dd8448eb211c80319c', span: 'b7ad6b7169203331' };
const PRODUCERS = [1, 2].map((i) => ({ trace: `4bf92f3577b34da6a3ce929d0e0e473${i}`, span: `00f067aa0ba902b${i}` }));
const traceparent = ({ trace, span }: typeof CALLER) => `00-${trace}-${span}-01`;

const spans: Span[] = [];
let collector: Server;
let endTracing: () => Promise<void>;
let topics: Topics;
let service: Service;

beforeAll(async () => {
  collector = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { resourceSpans } = JSON.parse(Buffer.concat(chunks).toString()) as Exported;
      spans.push(...resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)));
      response.setHeader('content-type', 'application/json').end('{}');
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  const { port } = collector.address() as AddressInfo;
  endTracing = startTracing({ endpoint: `http://127.0.0.1:${port}`, serviceName: 'fewloop', share: 0 });
  topics = await openTopics();
  service = await startService({ KAFKA_BROKERS: topics.brokers, KAFKA_GROUP_ID: unique('group') });
});
afterAll(async () => {
  await service?.close();
  await topics?.close();
  collector?.close();
});

it('goes from header to header, through the batch that a text was in', async () => {
  const [input, output] = [unique('texts'), unique('predictions')];
  await topics.create([input, output, `${input}.dlq`], 1);
  const definition = taskFile({ stream: { input, output } });
  await service.request('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', {
    definition,
  });
  const query = '{ classify(task: "tiny", inputs: [{text: "味道很好"}]) { label } }';
  const ask = (headers: Record<string, string>) =>
    fetch(service.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ query }),
    });
  expect((await ask({ traceparent: traceparent(CALLER) })).status).toBe(200);
  await ask({});
  await topics.send(input, [
    ...PRODUCERS.map((producer, i) => ({
      key: `k${i}`,
      value: `太差了${i}`,
      headers: { traceparent: traceparent(producer) },
    })),
    { key: 'none', value: '不知道' },
  ]);
  const outputs = await topics.read(output, 3);
  await service.close();
  await endTracing();

  const find = (name: string, traceId: string) => spans.filter((one) => one.name === name && one.traceId === traceId);
  const [asked] = find('classify', CALLER.trace);
  expect(asked!.parentSpanId).toBe(CALLER.span);
  const [batch] = find('batch', CALLER.trace);
  expect(batch!.parentSpanId).toBe(asked!.spanId);

  for (const [i, producer] of PRODUCERS.entries()) {
    const [record] = find(`process ${input}`, producer.trace);
    expect(record!.parentSpanId).toBe(producer.span);
    const { headers } = outputs.find(({ key }) => String(key) === `k${i}`)!;
    expect(String(headers['traceparent'])).toBe(traceparent({ trace: producer.trace, span: record!.spanId }));
  }
  expect(outputs.find(({ key }) => String(key) === 'none')!.headers).toEqual({});
  // They were fetched together or one after the other: each is in a scoring, by its own trace or as a link.
  const scorings = spans.filter(({ name }) => name === 'score');
  const reached = scorings.flatMap(({ traceId, links = [] }) => [traceId, ...links.map((link) => link.traceId)]);
  expect(reached.toSorted((a, b) => a.localeCompare(b))).toEqual(PRODUCERS.map(({ trace }) => trace));
  for (const scoring of scorings) {
    expect(find('batch', scoring.traceId).map(({ parentSpanId }) => parentSpanId)).toContain(scoring.spanId);
  }
  // What came without a trace made none.
  expect(new Set(spans.map(({ traceId }) => traceId))).toEqual(
    new Set([CALLER, ...PRODUCERS].map(({ trace }) => trace)),
  );
  expect(JSON.stringify(spans)).not.toMatch(/味道|太差/u);
});
