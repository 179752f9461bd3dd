import type { Kafka } from 'kafkajs';
import { expect, it } from 'vitest';
import type { KafkaSettings } from './client.js';
import { Committer } from './committer.js';
import type { TopicIds } from './internals.js';

it('asks by a new connection once a question has failed: the old one is asked for a topic that is deleted, for ever', async () => {
  const connections: { topics: Set<string>; open: boolean }[] = [];
  const there = new Set(['a', 'b']);
  // As kafkajs has it: what a connection was asked about is in all that it asks.
  const admin = () => {
    const connection = { topics: new Set<string>(), open: false };
    connections.push(connection);
    return {
      connect: async () => void (connection.open = true),
      disconnect: async () => void (connection.open = false),
      fetchTopicOffsets: async (topic: string) => {
        connection.topics.add(topic);
        for (const one of connection.topics) if (!there.has(one)) throw new Error(`${one} is unknown`);
        return [];
      },
    };
  };
  const consumer = () => {
    throw new Error('no consumer');
  };
  const committer = new Committer(
    { admin } as unknown as Kafka,
    {} as KafkaSettings,
    { keep: async () => undefined },
    {} as TopicIds,
    consumer,
  );
  const ask = (topic: string) => committer.ask((one) => one.fetchTopicOffsets(topic));
  await ask('a');
  await ask('b');
  expect(connections).toHaveLength(1);
  there.delete('a');
  await expect(ask('b')).rejects.toThrow('a is unknown');
  await expect(ask('b')).resolves.toEqual([]);
  expect(connections.map(({ open }) => open)).toEqual([false, true]);
  await committer.close();
  expect(connections.map(({ open }) => open)).toEqual([false, false]);
});
