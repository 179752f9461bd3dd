/** docs/kafka.md, executed: its snippets against the built service's own topics, on the broker of the test run. */
import { execFile, spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, inject, it, vi } from 'vitest';
import { openTopics, unique, type Topics } from '../fixtures/kafka.js';
import { startService, type Service } from '../fixtures/service.js';

const ROOT = resolve(import.meta.dirname, '../..');
const PAGE = readFileSync(resolve(ROOT, 'docs/kafka.md'), 'utf8');
const ADDRESS = '127.0.0.1:9092';
const HAS_KCAT = spawnSync('kcat', ['-V']).error === undefined;
const execute = promisify(execFile);

let service: Service;
let topics: Topics;

function blocks(name: string): string[] {
  const section = new RegExp(`<!-- ${name} -->\n(.*?)<!-- /${name} -->`, 'su').exec(PAGE)?.[1] ?? '';
  return [...section.matchAll(/^```\w*\n(.*?)^```$/gmsu)].map(([, block = '']) =>
    block.replaceAll(ADDRESS, inject('kafkaBrokers')),
  );
}

beforeAll(async () => {
  topics = await openTopics();
  service = await startService({ KAFKA_BROKERS: topics.brokers, KAFKA_GROUP_ID: unique('docs') });
  const definition = readFileSync(resolve(ROOT, 'examples/reviews/task.yaml'), 'utf8');
  await service.request('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', {
    definition,
  });
  // Until the service has created them.
  const created = () => topics.admin.fetchTopicMetadata({ topics: ['fewloop.texts', 'fewloop.predictions'] });
  await vi.waitFor(created, { timeout: 20_000, interval: 100 });
});
afterAll(async () => {
  await service?.close();
  await topics?.close();
});

it('the program prints what the page shows', async () => {
  const [program, output] = blocks('kafkajs');
  const file = resolve(ROOT, `${unique('.snippet')}.mjs`);
  writeFileSync(file, program!);
  try {
    const env = { ...process.env, KAFKAJS_LOG_LEVEL: 'nothing', KAFKAJS_NO_PARTITIONER_WARNING: '1' };
    const { stdout } = await execute(process.execPath, [file], { timeout: 40_000, env });
    // Which label the tiny model gives is its own affair.
    const form = (text: string) => text.trim().replace(/positive|negative/u, '<label>');
    expect(form(stdout)).toBe(form(output!));
  } finally {
    rmSync(file, { force: true });
  }
});

it('fewloop dlq lists, replays and drops', async () => {
  const dlq = async (...args: string[]): Promise<unknown> => {
    const cli = resolve(ROOT, 'dist/src/cli/main.js');
    const { stdout } = await execute(process.execPath, [cli, '--url', service.url, '--json', 'dlq', ...args]);
    return JSON.parse(stdout);
  };
  await topics.send('fewloop.texts', [{ key: 'k', value: '{"task":"nobody","text":"好"}' }]);
  await topics.read('fewloop.texts.dlq', 1);
  expect(await dlq('list', 'review-sentiment')).toMatchObject({
    nodes: [{ code: 'TASK_NOT_FOUND', key: 'k', value: '{"task":"nobody","text":"好"}' }],
  });
  expect(await dlq('replay', 'review-sentiment', '--first', '1')).toEqual({ replayed: 1 });
  await topics.read('fewloop.texts.dlq', 2);
  expect(await dlq('drop', 'review-sentiment')).toEqual({ dropped: 1 });
  expect(await dlq('list', 'review-sentiment')).toMatchObject({ nodes: [] });
});

it.skipIf(!HAS_KCAT)('kcat sends a plain text and reads its prediction', async () => {
  const [commands] = blocks('kcat');
  const [send, read] = commands!.trim().split('\n');
  await execute('sh', ['-c', send!]);
  await expect
    .poll(async () => (await execute('sh', ['-c', read!])).stdout, { timeout: 30_000 })
    .toContain('"id":"fewloop.texts:');
});
