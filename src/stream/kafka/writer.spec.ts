import { expect, it } from 'vitest';
import { requestsOf, type Outgoing } from './writer.js';

const outgoing = (topic: string, bytes: number, key: string): Outgoing => ({
  topic,
  message: { key, value: Buffer.alloc(bytes) },
});

const keys = (messages: Outgoing[]) =>
  [...requestsOf(messages)].map((topics) =>
    topics.map(({ topic, messages: own }) => [topic, own.map(({ key }) => key)]),
  );

it('keeps the order within a topic and stays under what brokers take', () => {
  const messages = [
    outgoing('a', 10, '1'),
    outgoing('b', 10, '2'),
    outgoing('a', 10, '3'),
    outgoing('a', 899_980, '4'),
  ];
  expect(keys(messages)).toEqual([
    [
      ['a', ['1', '3']],
      ['b', ['2']],
    ],
    [['a', ['4']]],
  ]);
});

it('one that is larger goes alone; nothing is no request', () => {
  expect(keys([outgoing('a', 2_000_000, '1'), outgoing('a', 1, '2')])).toEqual([[['a', ['1']]], [['a', ['2']]]]);
  expect(keys([])).toEqual([]);
});
