import { describe, expect, it } from 'vitest';
import { FewloopError } from '../../common/errors.js';
import type { Prediction } from '../../inference/types.js';
import { parseTask } from '../../task/definition.js';
import { deadLetterMessage, isReadable, outputMessage, readRecord, type Incoming } from './record.js';
import { resultsOf } from './results.js';
import { outputRecord, recordsJsonSchema } from './record-schema.js';
import { publishedSchema } from '../../../test/fixtures/published-schema.js';

const FILE = 'docs/stream-records.schema.json';

it('docs/stream-records.schema.json is current', () => {
  const current = recordsJsonSchema();
  expect(
    publishedSchema(FILE, current),
    'run UPDATE_SCHEMA=1 npx vitest run src/stream/kafka/record.spec.ts and prettier',
  ).toEqual(current);
});

const definition = (name: string, kind = 'single-label') =>
  parseTask(
    JSON.stringify({
      name,
      kind,
      labels: [
        { name: 'good', words: ['好'] },
        { name: 'bad', words: ['差'] },
      ],
      templates: [kind === 'sentence-pair' ? '{text}{mask}{textPair}' : '{text}很{mask}'],
    }),
  );
const one = new Map([['a', definition('a')]]);
const two = new Map([...one, ['b', definition('b', 'sentence-pair')]]);
const limits = { maxTextLength: 100 };

const incoming = (value: string | Buffer | null, changes: Partial<Incoming> = {}): Incoming => ({
  topic: 't',
  partition: 3,
  offset: '41',
  timestamp: '1700000000000',
  key: Buffer.from('k'),
  value: typeof value === 'string' ? Buffer.from(value) : value,
  headers: {},
  ...changes,
});
const read = (value: string | Buffer | null, tasks = one) => readRecord(incoming(value), tasks, limits);

describe('what is read', () => {
  it('an object: id, text and all else as metadata', () => {
    const record = read('{"id":"r1","task":"a","text":"很好","lang":"zh","metadata":{"shop":7,"lang":"zh-CN"}}');
    expect(record).toMatchObject({ id: 'r1', item: { text: '很好' }, metadata: { lang: 'zh-CN', shop: 7 } });
  });

  it('without id the place, without task the only one', () => {
    expect(read('{"text":"很好"}')).toMatchObject({ id: 't:3:41', definition: { name: 'a' }, metadata: {} });
  });

  it.each(['很好', ' 很好', '"很好"', '[1]', '42', '{很好', 'null'])('the text itself: %s', (text) => {
    expect(read(text)).toMatchObject({ item: { text } });
  });

  it('a pair on a shared topic', () => {
    expect(read('{"task":"b","text":"一","textPair":"二"}', two)).toMatchObject({ item: { textPair: '二' } });
  });

  it.each([
    ['很好', 'BAD_INPUT', 'which one is it for'],
    ['{"text":"很好"}', 'BAD_INPUT', 'task: is missing'],
    ['{"task":"c","text":"很好"}', 'TASK_NOT_FOUND', 'no task c reads topic t'],
    ['{"task":"b","text":"一"}', 'BAD_INPUT', 'textPair: is missing'],
  ])('refused on a shared topic: %s', (value, code, message) => {
    expect(read(value, two)).toMatchObject({ error: { code, message: expect.stringContaining(message) as string } });
  });

  it.each([
    [null, 'value: there is none'],
    [Buffer.from([0xff, 0xfe]), 'is not UTF-8'],
    ['', 'text: is empty'],
    ['{"id":7,"text":"一"}', 'id: '],
    ['{"id":"\\u0000","text":"一"}', 'id: holds the character'],
    ['{"text":7}', 'text: '],
    ['{"texts":"一"}', 'text: '],
    ['{"text":"a\\ud800"}', 'surrogate'],
    [`{"text":"${'好'.repeat(101)}"}`, '101 characters'],
  ])('refused: %s', (value, message) => {
    const record = read(value);
    expect(isReadable(record)).toBe(false);
    expect(record).toMatchObject({ task: 'a', error: { code: 'BAD_INPUT' } });
    expect((record as { error: Error }).error.message).toContain(message);
  });
});

it('keeps no name of a task that is none', () => {
  expect(read('{"task":"\\u0000","text":"一"}')).toMatchObject({ task: null, error: { code: 'TASK_NOT_FOUND' } });
});

const prediction: Prediction = {
  label: 'good',
  labels: ['good'],
  confidence: 0.9,
  calibrated: true,
  margin: 0.8,
  entropy: 0.3,
  disagreement: { voters: 2, dissenting: 0, unanimous: true, voteEntropy: 0, jensenShannon: 0.01 },
  distribution: [
    { label: 'good', probability: 0.9 },
    { label: 'bad', probability: 0.1 },
  ],
  members: [],
  route: 'ACCEPT',
  modelVersion: 3,
  taskRevision: 2,
};

describe('what is written', () => {
  it('the output is what its schema says, with key and headers of the input', () => {
    const headers = { traceparent: Buffer.from('00-aa-bb-01') };
    const record = readRecord(incoming('{"id":"r","text":"好","x":1}', { headers }), one, limits);
    const message = outputMessage(record as never, prediction, '2026-01-01T00:00:00.000Z');
    const value: unknown = JSON.parse(String(message.value));
    expect(outputRecord.parse(value)).toEqual(value);
    expect(value).toMatchObject({ metadata: { x: 1 }, source: { topic: 't', partition: 3, offset: 41 } });
    expect(message).toMatchObject({ key: Buffer.from('k'), headers });
  });

  it('a prediction that no broker would take is refused', () => {
    const record = readRecord(incoming(`{"text":"好","x":"${'y'.repeat(1_000_001)}"}`), one, limits);
    expect(() => outputMessage(record as never, prediction, '')).toThrow('would have');
  });

  it('a value nested too deep to be written is the record’s fault', () => {
    const deep = `{"id":"d","text":"好","x":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    const record = readRecord(incoming(deep), one, limits);
    const outcome = { ref: '41', state: 'scored' as const, prediction };
    const { entries, outgoing } = resultsOf([record], new Map([['41', outcome]]), { headersOf: () => ({}) });
    expect(entries).toMatchObject([{ state: 'dead' }]);
    expect(outgoing).toMatchObject([{ topic: 't.dlq', message: { value: Buffer.from(deep) } }]);
  });

  it('a dead letter is the record byte for byte, and says why', () => {
    const value = Buffer.from([0xff, 0x00]);
    const dead = incoming(value, { key: null, headers: { a: 'b', 'fewloop-source': 'older' } });
    expect(deadLetterMessage(dead, new FewloopError('BAD_INPUT', 'value: is not UTF-8'))).toEqual({
      key: null,
      value,
      headers: {
        a: 'b',
        'fewloop-error-code': 'BAD_INPUT',
        'fewloop-error-message': 'value: is not UTF-8',
        'fewloop-source': 't:3:41',
      },
    });
  });
});
