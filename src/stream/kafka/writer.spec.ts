import { expect, it } from 'vitest';
import { REQUEST_BYTES, RequestTooLarge, sendAll, type Outgoing } from './writer.js';

const outgoing = (topic: string, bytes: number, key: string): Outgoing => ({
  topic,
  message: { key, value: Buffer.alloc(bytes) },
});

async function keys(outgoing: Outgoing[]) {
  const sent: unknown[] = [];
  await sendAll(outgoing, REQUEST_BYTES, async (topics) => {
    sent.push(topics.map(({ topic, messages }) => [topic, messages.map(({ key }) => key)]));
  });
  return sent;
}

it('keeps the order within a topic and stays under what brokers take', async () => {
  const messages = [
    outgoing('a', 10, '1'),
    outgoing('b', 10, '2'),
    outgoing('a', 10, '3'),
    outgoing('a', 899_980, '4'),
  ];
  expect(await keys(messages)).toEqual([
    [
      ['a', ['1', '3']],
      ['b', ['2']],
    ],
    [['a', ['4']]],
  ]);
});

it('one that is larger goes alone; nothing is no request', async () => {
  expect(await keys([outgoing('a', 2_000_000, '1'), outgoing('a', 1, '2')])).toEqual([[['a', ['1']]], [['a', ['2']]]]);
  expect(await keys([])).toEqual([]);
});

it('tells which messages a topic does not take, and passes other failures on', async () => {
  const messages = [outgoing('a', 900_000, '1'), outgoing('b', 10, '2'), outgoing('a', 10, '3')];
  const sending = (type: string) =>
    sendAll(messages, REQUEST_BYTES, async ([first]) => {
      if (first!.topic === 'b') throw Object.assign(new Error(type), { type });
    });
  const error = await sending('MESSAGE_TOO_LARGE').catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(RequestTooLarge);
  expect((error as RequestTooLarge).messages).toEqual(messages.slice(1));
  expect((error as RequestTooLarge).bytes).toBe(22);
  await expect(sending('NOT_LEADER_FOR_PARTITION')).rejects.toThrow(/^NOT_LEADER/u);
});
