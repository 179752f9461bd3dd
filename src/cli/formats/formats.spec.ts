import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { detectExamples, detectTexts, EXAMPLE_READERS, EXAMPLE_WRITERS, TEXT_READERS } from './formats.js';
import type { ExampleRecord } from './records.js';

const text = fc.string({ unit: 'binary', minLength: 1 }).filter((s) => s.trim() !== '');
const split = fc.constantFrom('TRAIN' as const, 'DEV' as const, 'TEST' as const);
const fields = fc.dictionary(
  fc.string({ minLength: 1 }).filter((key) => key !== '__proto__'),
  text,
  { maxKeys: 3 },
);
const plain = fc.record({ text, labels: fc.tuple(text), split, fields }, { requiredKeys: ['text', 'labels', 'split'] });
const pair = fc.record({ text, textPair: text, labels: fc.tuple(text), split });
const choice = fc
  .record({ text, choices: fc.uniqueArray(text, { minLength: 2, maxLength: 5 }), split })
  .map((record) => ({ ...record, labels: [record.choices[0]!] }));
const several = fc.record({ text, labels: fc.uniqueArray(text, { maxLength: 3 }), split });

describe('export and import', () => {
  for (const format of ['jsonl', 'label-studio', 'doccano', 'prodigy', 'fewclue'] as const) {
    const shapes = format === 'fewclue' ? [plain, pair, choice] : [plain, pair, choice, several];
    it.each(shapes.map((shape, i) => [i, shape] as const))(`${format} loses nothing (shape %i)`, (_, shape) => {
      fc.assert(
        fc.property(fc.array(shape as fc.Arbitrary<ExampleRecord>, { minLength: 1, maxLength: 10 }), (examples) => {
          const written = EXAMPLE_WRITERS[format](examples);
          const { records, errors } = EXAMPLE_READERS[format](written);
          expect(errors).toEqual([]);
          expect(records.map(({ value }) => value)).toEqual(examples);
        }),
        { numRuns: 50 },
      );
    });
  }

  it('is found out by what is in the file', () => {
    const example: ExampleRecord[] = [{ text: '很好', labels: ['positive'], split: 'TRAIN' }];
    expect(detectExamples('a.jsonl', EXAMPLE_WRITERS.jsonl(example))).toBe('jsonl');
    expect(detectExamples('a.json', EXAMPLE_WRITERS['label-studio'](example))).toBe('label-studio');
    expect(detectExamples('a.jsonl', EXAMPLE_WRITERS.prodigy(example))).toBe('prodigy');
    expect(detectExamples('a.json', EXAMPLE_WRITERS.fewclue(example))).toBe('fewclue');
    expect(detectExamples('a.csv', 'text,label\n好,1\n')).toBe('csv');
    expect(detectTexts('a.txt', '[图片] 很好\n')).toBe('lines');
    expect(detectTexts('a.txt', '{"text":"好"}\n')).toBe('jsonl');
  });
});

describe('reading', () => {
  it('takes 99 of 100 lines and names line 57', () => {
    const lines = Array.from({ length: 100 }, (_, i) => JSON.stringify({ text: `第${i}条`, label: 'a' }));
    lines[56] = '{"text": "断';
    const content = lines.join('\n');
    const { records, errors } = EXAMPLE_READERS[detectExamples('x.jsonl', content)](content);
    expect(records).toHaveLength(99);
    expect(errors.map(({ line }) => line)).toEqual([57]);
  });

  it('does not end a line at U+2028, U+2029 or U+0085', () => {
    const value = '一\u2028二\u2029三\u0085四';
    expect(TEXT_READERS.lines(`${value}\n五\r\n`).records.map((r) => r.value.text)).toEqual([value, '五']);
    expect(TEXT_READERS.jsonl(`{"text":"${value}"}\n`).records.map((r) => r.value.text)).toEqual([value]);
  });

  it('reads CSV with a byte-order mark, quotes, commas and line ends inside', () => {
    const content =
      '\ufefftext,label\r\n"他说""好"", 真的",positive\r\n"两\n行",negative\r\n只有一格\r\n好,positive\r\n';
    const { records, errors } = EXAMPLE_READERS.csv(content);
    expect(records.map(({ value }) => [value.text, value.labels])).toEqual([
      ['他说"好", 真的', ['positive']],
      ['两\n行', ['negative']],
      ['好', ['positive']],
    ]);
    expect(errors.map(({ line }) => line)).toEqual([5]);
  });

  it('reads several labels a text, and none, from CSV', () => {
    const { records } = EXAMPLE_READERS.csv('text,labels\n一,a|b\n二,"[""a""]"\n三,\n');
    expect(records.map(({ value }) => value.labels)).toEqual([['a', 'b'], ['a'], []]);
  });

  it.each([
    ['{"sentence":"好","label":"Positive"}', { text: '好', labels: ['Positive'] }],
    [
      '{"sentence":"好","label":110,"label_desc":"news_military","keywords":""}',
      { text: '好', labels: ['news_military'] },
    ],
    ['{"sentence1":"a","sentence2":"b","label":"0"}', { text: 'a', textPair: 'b', labels: ['0'] }],
    [
      '{"content":"#idiom#","candidates":["甲","乙"],"answer":1}',
      { text: '#idiom#', choices: ['甲', '乙'], labels: ['乙'] },
    ],
    ['{"abst":"文","keyword":["甲","乙"],"label":"1"}', { text: '文', fields: { keywords: '甲，乙' }, labels: ['1'] }],
    [
      '{"text":"文","target":{"span1_text":"甲"},"label":"true"}',
      { text: '文', fields: { span1_text: '甲' }, labels: ['true'] },
    ],
  ])("reads FewCLUE's own %s", (line, expected) => {
    expect(detectExamples('train_0.json', line)).toBe('fewclue');
    expect(EXAMPLE_READERS.fewclue(line).records[0]?.value).toEqual(expected);
  });

  it('leaves out what nobody accepted or agreed on', () => {
    expect(EXAMPLE_READERS.prodigy('{"text":"a","label":"x","answer":"reject"}').records).toEqual([]);
    expect(EXAMPLE_READERS.fewclue('{"sentence1":"a","sentence2":"b","label":"-"}').records).toEqual([]);
    expect(EXAMPLE_READERS['label-studio']('[{"data":{"text":"a"},"annotations":[]}]').records).toEqual([]);
  });
});
