import type { Kafka } from 'kafkajs';
import { afterEach, expect, it, vi } from 'vitest';
import type { KafkaSettings } from './client.js';
import { InputConsumer } from './input-consumer.js';
import type { TopicIds } from './internals.js';
import type { TaskDirectory } from './task-directory.js';

type Listener = (event: { payload: object }) => void;

/** Brokers with these topics, and consumers that do what `run` does. */
function fakeKafka(topics: Set<string>, run: (crash: (restart: boolean) => void) => Promise<void>) {
  const subscribed: string[][] = [];
  const consumer = () => {
    const listeners = new Map<string, Listener>();
    const crash = (restart: boolean) =>
      listeners.get('CRASH')!({ payload: { error: new Error('not to be joined'), restart } });
    return {
      events: { GROUP_JOIN: 'GROUP_JOIN', END_BATCH_PROCESS: 'END_BATCH_PROCESS', CRASH: 'CRASH' },
      on: (name: string, listener: Listener) => listeners.set(name, listener),
      connect: async () => undefined,
      disconnect: async () => undefined,
      async subscribe(wanted: { topics: string[] }) {
        const unknown = wanted.topics.find((topic) => !topics.has(topic));
        if (unknown !== undefined) throw new Error(`${unknown} is unknown`);
        subscribed.push(wanted.topics);
      },
      run: () => run(crash),
    };
  };
  const admin = () => ({
    connect: async () => undefined,
    disconnect: async () => undefined,
    createTopics: async () => {
      throw new Error('not authorized');
    },
  });
  const ids = { of: async (wanted: string[]) => new Map(wanted.filter((t) => topics.has(t)).map((t) => [t, `${t}1`])) };
  return { kafka: { consumer, admin } as unknown as Kafka, ids: ids as unknown as TopicIds, subscribed };
}

function consumerOf({ kafka, ids }: ReturnType<typeof fakeKafka>): InputConsumer {
  const inputs = new Map([
    ['a', []],
    ['b', []],
  ]);
  const directory = { refresh: async () => undefined, topics: () => inputs } as unknown as TaskDirectory;
  const settings = { kafkaGroupId: 'group', kafkaSessionTimeoutMs: 6000 } as KafkaSettings;
  return new InputConsumer(kafka, settings, directory, ids, {
    assigned: () => undefined,
    fetched: () => undefined,
    passed: () => undefined,
    cut: () => undefined,
  });
}

let started: InputConsumer;
afterEach(() => started.stop());

it('goes on with the other topics when one is deleted', async () => {
  const topics = new Set(['a', 'b', 'a.dlq', 'b.dlq', 'fewloop.events']);
  const fake = fakeKafka(topics, async () => undefined);
  started = consumerOf(fake);
  started.start();
  await expect.poll(() => fake.subscribed).toEqual([['a', 'b']]);
  topics.delete('a');
  await expect.poll(() => fake.subscribed.at(-1)).toEqual(['b']);
  expect(started.state()).toEqual({ ok: true });
});

it('starts a consumer again that ended while it joined, and is not well until then', async () => {
  const run = vi.fn(async (crash: (restart: boolean) => void) => crash(false));
  const fake = fakeKafka(new Set(['a', 'b', 'a.dlq', 'b.dlq', 'fewloop.events']), run);
  started = consumerOf(fake);
  started.start();
  await expect.poll(() => fake.subscribed.length).toBe(1);
  await expect.poll(() => started.state()).toEqual({ ok: false, reason: expect.stringContaining('not to be joined') });
  run.mockResolvedValue(undefined);
  await expect.poll(() => fake.subscribed.length).toBe(2);
  await expect.poll(() => started.state()).toEqual({ ok: true });
});
