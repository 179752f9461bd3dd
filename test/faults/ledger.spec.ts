import { expect, it } from 'vitest';
import type { ReadMessage } from '../fixtures/kafka.js';
import { compare } from './ledger.js';

const message = (offset: number, value: object = {}): ReadMessage => ({
  partition: 0,
  offset: String(offset),
  key: Buffer.from('k'),
  value: Buffer.from(JSON.stringify(value)),
  headers: {},
});
const sent = [0, 1, 2, 3].map((offset) => message(offset));
const output = (offset: number, modelVersion = 1) => message(0, { source: { partition: 0, offset }, modelVersion });
const clean = { sent: 4, lost: 0, duplicated: 0, outOfOrder: 0, wrongVersion: 0, history: 0 };

it('finds nothing where all is well, a swap and a rollback included', () => {
  const outputs = [output(0), output(1, 2), output(2, 2), output(3)];
  expect(compare(sent, outputs, [1, 2, 1], 4)).toEqual(clean);
});

it.each([
  ['lost', [output(0), output(1), output(3)], { lost: 1 }],
  ['duplicated', [0, 1, 2, 3, 3].map((offset) => output(offset)), { duplicated: 1 }],
  ['out of order', [0, 2, 1, 3].map((offset) => output(offset)), { outOfOrder: 1 }],
  ['versions interleaved', [output(0), output(1, 2), output(2), output(3, 2)], { wrongVersion: 1 }],
])('finds what is %s', (_, outputs, wrong) => {
  expect(compare(sent, outputs, [1, 2], 4)).toEqual({ ...clean, ...wrong });
});

it('finds rows that PostgreSQL has beyond those that were sent', () => {
  expect(
    compare(
      sent,
      [0, 1, 2, 3].map((offset) => output(offset)),
      [1],
      5,
    ),
  ).toEqual({ ...clean, history: 1 });
});
