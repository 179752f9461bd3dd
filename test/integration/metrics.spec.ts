/** The whole service, over HTTP and Kafka with the tiny model: what a scrape tells after traffic, and how far behind it says it is. */
import kafkajs from 'kafkajs';
import { execFileSync } from 'node:child_process';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { InferenceEngine } from '../../src/inference/engine.js';
import { committedOffsets } from '../../src/stream/kafka/client.js';
import { taskFile } from '../fixtures/intake.js';
import { numbered, openTopics, unique, type Topics } from '../fixtures/kafka.js';
import { expressions, hasPromtool, promtool } from '../fixtures/operations.js';
import { type Service, startService } from '../fixtures/service.js';
import { scrape, type Scrape } from '../fixtures/scrape.js';

const APPLY = 'mutation ($definition: String!) { applyTask(definition: $definition) { name } }';
const CLASSIFY = `query ($task: String!, $inputs: [TextInput!]!) { classify(task: $task, inputs: $inputs) { label route } }`;

let topics: Topics;
let service: Service;
let input: string;
let output: string;
let group: string;
let task: string;

beforeAll(async () => {
  topics = await openTopics();
  group = unique('group');
  service = await startService({
    KAFKA_BROKERS: topics.brokers,
    KAFKA_GROUP_ID: group,
    KAFKA_SESSION_TIMEOUT_MS: '6000',
  });
});
beforeEach(async () => {
  task = unique('task');
  input = unique('texts');
  output = unique('predictions');
  await topics.create([input, output, `${input}.dlq`], 1);
  await service.request(APPLY, { definition: taskFile({ name: task, stream: { input, output } }) });
});
afterEach(() => {
  vi.restoreAllMocks();
});
afterAll(async () => {
  await service?.close();
  await topics?.close();
});

const scraped = (): Promise<Scrape> => scrape(service.url);

describe('a scrape after traffic', () => {
  it('counts requests, predictions, batches, records and dead letters', async () => {
    const inputs = [{ text: '味道很好' }, { text: '太差了' }, { text: '太差了' }];
    await service.request(CLASSIFY, { task, inputs });
    await service.request(CLASSIFY, { task, inputs });
    await service.ask(CLASSIFY, { task: 'nowhere', inputs });
    await service.ask('{ nothing }');
    await topics.send(input, [...numbered(20), { key: 'bad', value: Buffer.from([0xff]) }]);
    await topics.read(output, 20);
    await topics.read(`${input}.dlq`, 1);
    await expect.poll(async () => (await scraped()).value('fewloop_stream_lag_records', { topic: input })).toBe(0);

    const seen = await scraped();
    const sum = (name: string, labels: Record<string, string> = {}) => seen.sum(name, labels);
    expect(sum('fewloop_requests_total', { operation: 'classify', code: 'OK' })).toBe(2);
    expect(sum('fewloop_requests_total', { operation: 'classify', code: 'TASK_NOT_FOUND' })).toBe(1);
    expect(sum('fewloop_requests_total', { operation: 'none', code: 'BAD_INPUT' })).toBe(1);
    expect(sum('fewloop_request_seconds_count', { operation: 'classify' })).toBe(3);
    expect(sum('fewloop_errors_total', { code: 'TASK_NOT_FOUND' })).toBe(1);

    expect(sum('fewloop_predictions_total', { task, source: 'api' })).toBe(6);
    expect(sum('fewloop_predictions_total', { task, source: 'stream' })).toBe(20);
    expect(sum('fewloop_recent_answers_total', { task })).toBe(2);
    const inferred = { task, version: '1', policy: 'ensemble', priority: 'interactive' };
    expect(sum('fewloop_inference_seconds_count', inferred)).toBe(1);
    expect(sum('fewloop_inference_seconds_sum', inferred)).toBeGreaterThan(0);
    expect(sum('fewloop_queue_seconds_count', { task, priority: 'bulk' })).toBeGreaterThanOrEqual(1);
    const tokens = sum('fewloop_batch_tokens_sum', { priority: 'interactive' });
    expect(tokens).toBeGreaterThan(2 * inputs[0]!.text.length);
    expect(sum('fewloop_batch_padding_tokens_total', { priority: 'interactive' })).toBeLessThan(tokens);
    const batches = sum('fewloop_batch_seconds_count');
    expect(sum('fewloop_batch_fill_ratio_count')).toBe(batches);
    expect(sum('fewloop_batch_fill_ratio_sum')).toBeLessThanOrEqual(batches);
    expect(seen.value('fewloop_queue_tokens', {})).toBe(0);

    expect(sum('fewloop_stream_records_total', { task, outcome: 'scored' })).toBe(20);
    expect(sum('fewloop_stream_dead_letters_total', { task, code: 'BAD_INPUT' })).toBe(1);
    expect(sum('fewloop_stream_batch_records_sum')).toBe(21);
    expect(sum('fewloop_stream_commit_seconds_count')).toBe(sum('fewloop_stream_inference_seconds_count'));
    expect(sum('fewloop_stream_lag_seconds', { topic: input })).toBe(0);
    expect(seen.value('fewloop_stream_drain_seconds', {})).toBe(0);

    expect(seen.value('fewloop_hosts', {})).toBe(seen.value('fewloop_hosts_expected', {}));
    expect(seen.value('fewloop_hosts_resident_memory_bytes', {})).toBeGreaterThan(20_000_000);
    expect(seen.value('fewloop_active_version', { task })).toBe(1);
    expect(sum('fewloop_swaps_total', { task })).toBe(1);
    expect(seen.value('fewloop_review_questions', { task })).toBeGreaterThanOrEqual(0);
    expect(seen.value('fewloop_ready', { part: 'stream' })).toBe(1);
    expect(sum('fewloop_scrape_failures_total')).toBe(0);
    expect(seen.text).not.toMatch(/味道|太差|r\d+"/u);
  });

  it('counts a model host that ended and was replaced', async () => {
    const pid = hostPids()[0]!;
    process.kill(pid, 'SIGKILL');
    await vi.waitFor(async () => {
      expect((await scraped()).sum('fewloop_host_restarts_total')).toBe(1);
    }, 20_000);
    const seen = await scraped();
    expect(seen.value('fewloop_hosts', {})).toBe(seen.value('fewloop_hosts_expected', {}));
  });
});

describe('a real scrape', () => {
  it('has every metric that dashboard and alerts ask for', async () => {
    const { text } = await scraped();
    const told = new Set([...text.matchAll(/^# TYPE (\S+) /gmu)].map(([, name]) => name));
    const asked = expressions().flatMap((expression) => expression.match(/\b(fewloop|nodejs|process)_\w+/gu) ?? []);
    const missing = asked.filter((name) => !told.has(name) && !told.has(name.replace(/_(bucket|sum|count)$/u, '')));
    expect(missing).toEqual([]);
  });

  it.runIf(hasPromtool())('is to the taste of promtool', async () => {
    const { text } = await scraped();
    // The library's own metrics of Node are not all.
    const own = text.split('\n').filter((line) => /^(# (HELP|TYPE) )?fewloop_/u.test(line));
    expect(promtool(['check', 'metrics'], `${own.join('\n')}\n`)).toEqual({ status: 0, output: '' });
  });
});

describe('lag', () => {
  /** `transactions` of `records` each: a marker follows each of them. */
  async function sendInTransactions(transactions: number, records: number): Promise<void> {
    const producer = topics.kafka.producer({
      transactionalId: unique('producer'),
      idempotent: true,
      maxInFlightRequests: 1,
      createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    });
    await producer.connect();
    for (let i = 0; i < transactions; i++) {
      const transaction = await producer.transaction();
      await transaction.send({ topic: input, messages: numbered(records, i * records) });
      await transaction.commit();
    }
    await producer.disconnect();
  }

  it('does not count the markers of transactions', async () => {
    const release = holdStream();
    await sendInTransactions(10, 3);
    // The last marker is written behind the answer to the commit.
    const end = async () => Number((await topics.admin.fetchTopicOffsets(input))[0]!.high);
    await expect.poll(end).toBe(40);
    await vi.waitFor(async () => {
      expect((await scraped()).value('fewloop_stream_lag_records', { topic: input })).toBe(30);
    }, 20_000);
    const behind = (await scraped()).value('fewloop_stream_lag_seconds', { topic: input })!;
    expect(behind).toBeGreaterThan(0);
    await new Promise((resolve) => setTimeout(resolve, 1100));
    expect((await scraped()).value('fewloop_stream_lag_seconds', { topic: input })).toBeGreaterThan(behind + 1);

    release();
    await topics.read(output, 30);
    await vi.waitFor(async () => {
      const seen = await scraped();
      expect(seen.value('fewloop_stream_lag_records', { topic: input })).toBe(0);
      expect(seen.value('fewloop_stream_lag_seconds', { topic: input })).toBe(0);
      expect(seen.value('fewloop_stream_consumption_rate', {})).toBeGreaterThan(0);
    }, 20_000);
    // What the plain difference would say for ever.
    const committed = (await committedOffsets(topics.admin, group, input)).get(0)!;
    expect((await end()) - Number(committed)).toBe(1);
  });

  it('tells what waits beyond the high-water mark', async () => {
    const release = holdStream();
    await topics.send(input, numbered(5000));
    await vi.waitFor(
      async () => expect((await scraped()).value('fewloop_stream_lag_records', { topic: input })).toBe(5000),
      { timeout: 20_000, interval: 500 },
    );
    release();
    await topics.read(output, 5000);
    await expect.poll(async () => (await scraped()).value('fewloop_stream_lag_records', { topic: input })).toBe(0);
  });
});

it('a request has an id, its own or a new one', async () => {
  const ask = (headers: Record<string, string>) =>
    fetch(new URL('/graphql', service.url), { method: 'POST', headers, body: '{}' });
  const answered = await ask({ 'content-type': 'application/json', 'x-request-id': 'order-17' });
  expect(answered.headers.get('x-request-id')).toBe('order-17');
  expect((await ask({ 'content-type': 'application/json' })).headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/u);
});

/** Scores for the stream wait until it is released. */
function holdStream(): () => void {
  let release = () => {};
  const released = new Promise<void>((resolve) => (release = resolve));
  const classify = InferenceEngine.prototype.classify;
  vi.spyOn(InferenceEngine.prototype, 'classify').mockImplementation(async function (
    this: InferenceEngine,
    model,
    request,
  ) {
    if (request.priority === 'bulk') await released;
    return classify.call(this, model, request);
  });
  return release;
}

/** Children of this process that are model hosts. */
function hostPids(): number[] {
  const lines = execFileSync('ps', ['--ppid', String(process.pid), '-o', 'pid=,args='], { encoding: 'utf8' }).split(
    '\n',
  );
  return lines.filter((line) => /runtime\/host\.[jt]s/u.test(line)).map((line) => Number.parseInt(line, 10));
}
