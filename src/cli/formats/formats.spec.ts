import * as fc from 'fast-check';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  detectExamples,
  detectTexts,
  EXAMPLE_READERS,
  type Reader,
  TEXT_READERS,
  written,
  type WrittenFormat,
} from './formats.js';
import { parquetRowsIn, writeParquet } from './parquet.js';
import type { ExampleRecord, OutgoingRecord } from './records.js';
import { fileSource, type Source } from './sources.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-formats-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** In pieces of a few characters, so that what is read begins and ends anywhere. */
function sourceOf(content: string, path = 'a', piece = 7): Source {
  async function* chunks() {
    const whole = Array.from(content.replace(/^\ufeff/u, ''));
    for (let at = 0; at < whole.length; at += piece) yield whole.slice(at, at + piece).join('');
  }
  return { path, size: content.length, head: async () => content.replace(/^\ufeff/u, ''), chunks };
}

async function readAll<T>(reader: Reader<T>, source: Source | string) {
  const values: T[] = [];
  const errors: number[] = [];
  for await (const entry of reader(typeof source === 'string' ? sourceOf(source) : source)) {
    if ('value' in entry) values.push(entry.value);
    else errors.push(entry.line);
  }
  return { values, errors };
}

async function* each<T>(values: readonly T[]): AsyncGenerator<T> {
  yield* values;
}

async function write(format: WrittenFormat, records: OutgoingRecord[], names: string[] = []): Promise<string> {
  let content = '';
  for await (const piece of written(format, each(records), names)) content += piece;
  return content;
}

/** U+FEFF is a byte-order mark at the start of a file, and nowhere else. */
const character = fc.oneof(
  { weight: 9, arbitrary: fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }) },
  { weight: 1, arbitrary: fc.constant('\ufeff') },
);
const text = fc.string({ unit: character, minLength: 1 }).filter((s) => s.trim() !== '');
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
  for (const format of ['jsonl', 'csv', 'label-studio', 'doccano', 'prodigy', 'fewclue', 'parquet'] as const) {
    const shapes = format === 'fewclue' ? [plain, pair, choice] : [plain, pair, choice, several];
    it.each(shapes.map((shape, i) => [i, shape] as const))(`${format} loses nothing (shape %i)`, async (_, shape) => {
      const examples = fc.array<ExampleRecord>(shape, { minLength: 1, maxLength: 10 });
      await fc.assert(
        fc.asyncProperty(examples, fc.integer({ min: 1, max: 50 }), async (given, piece) => {
          let source;
          if (format === 'parquet') {
            const path = join(folder, 'a.parquet');
            await writeParquet(path, each(given), null);
            source = fileSource(path);
          } else source = sourceOf(await write(format, given), 'a', piece);
          expect(await readAll(EXAMPLE_READERS[format], source)).toEqual({ values: given, errors: [] });
        }),
        { numRuns: 50 },
      );
    });
  }

  it('carries predictions beside labels, and no predictions as labels', async () => {
    const prediction = { labels: ['negative'], confidence: 0.75, modelVersion: 3 };
    const records: OutgoingRecord[] = [
      { text: '很好', labels: ['positive'], prediction },
      { text: '一般', prediction },
    ];
    const content = await write('label-studio', records);
    const [first, second] = JSON.parse(content) as Record<string, unknown>[];
    const result = [{ from_name: 'label', to_name: 'text', type: 'choices', value: { choices: ['negative'] } }];
    expect(first!['predictions']).toEqual([{ model_version: '3', score: 0.75, result }]);
    expect(second).toMatchObject({ annotations: [], predictions: [{ score: 0.75 }] });
    const { values } = await readAll(EXAMPLE_READERS['label-studio'], content);
    expect(values).toEqual([{ text: '很好', labels: ['positive'] }]);
  });

  it('of Parquet has the task’s labels as a ClassLabel, in groups of a thousand rows', async () => {
    const path = join(folder, 'classes.parquet');
    const labels = ['negative', 'positive'];
    const records = Array.from({ length: 2500 }, (_, i) => ({ text: `第${i}条`, labels: [labels[i % 2]!] }));
    expect(await writeParquet(path, each(records), labels)).toBe(2500);
    const seen: number[] = [];
    const rows = [];
    for await (const row of parquetRowsIn(fileSource(path), (bytes) => seen.push(bytes))) rows.push(row);
    expect(rows[1]).toMatchObject({ line: 2, value: { text: '第1条', label: 'positive', labels: ['positive'] } });
    expect(seen).toHaveLength(3);
    expect(await detectExamples(fileSource(path))).toBe('parquet');
    expect(await detectTexts(fileSource(path))).toBe('parquet');
    expect((await readAll(TEXT_READERS.parquet, fileSource(path))).values[2499]).toEqual({ text: '第2499条' });
  });

  it('is found out by what is in the file', async () => {
    const example: OutgoingRecord[] = [{ text: '很好', labels: ['positive'], split: 'TRAIN' }];
    for (const format of ['jsonl', 'label-studio', 'prodigy', 'fewclue', 'csv'] as const) {
      expect(await detectExamples(sourceOf(await write(format, example)))).toBe(format);
    }
    expect(await detectTexts(sourceOf('[图片] 很好\n'))).toBe('lines');
    expect(await detectTexts(sourceOf('{"text":"好"}\n'))).toBe('jsonl');
  });
});

describe('reading', () => {
  it('keeps U+FEFF that a tool has escaped', async () => {
    const rows = String.raw`[{"text":"\ufeff好\uFEFF","label":"a\ufeff"}]`;
    const { values, errors } = await readAll(EXAMPLE_READERS[await detectExamples(sourceOf(rows))], sourceOf(rows));
    expect([values, errors]).toEqual([[{ text: '\ufeff好\ufeff', labels: ['a\ufeff'] }], []]);
  });

  it('takes 99 of 100 lines and names line 57', async () => {
    const lines = Array.from({ length: 100 }, (_, i) => JSON.stringify({ text: `第${i}条`, label: 'a' }));
    lines[56] = '{"text": "断';
    const source = sourceOf(lines.join('\n'), 'x.jsonl');
    const { values, errors } = await readAll(EXAMPLE_READERS[await detectExamples(source)], source);
    expect(values).toHaveLength(99);
    expect(errors).toEqual([57]);
  });

  it('does not end a line at U+2028, U+2029 or U+0085', async () => {
    const value = '一\u2028二\u2029三\u0085四';
    const texts = async (reader: Reader<{ text: string }>, content: string) =>
      (await readAll(reader, content)).values.map(({ text: one }) => one);
    expect(await texts(TEXT_READERS.lines, `${value}\n五\r\n`)).toEqual([value, '五']);
    expect(await texts(TEXT_READERS.jsonl, `{"text":"${value}"}\n`)).toEqual([value]);
  });

  it('reads CSV with a byte-order mark, quotes, commas and line ends inside', async () => {
    const content =
      '\ufefftext,label\r\n"他说""好"", 真的",positive\r\n"两\n行",negative\r\n只有一格\r\n好,positive\r\n';
    const { values, errors } = await readAll(EXAMPLE_READERS.csv, content);
    expect(values.map(({ text: one, labels }) => [one, labels])).toEqual([
      ['他说"好", 真的', ['positive']],
      ['两\n行', ['negative']],
      ['好', ['positive']],
    ]);
    expect(errors).toEqual([5]);
  });

  it('refuses CSV as a whole where its header has no place for what each row needs', async () => {
    const { csv } = EXAMPLE_READERS;
    await expect(readAll(csv, sourceOf('cat,review\n好,一\n'))).rejects.toThrow(
      /columns are: cat, review; it needs label or labels$/u,
    );
    await expect(readAll(csv, sourceOf('这家店很好\n差\n'))).rejects.toThrow(
      /: 这家店很好; it needs text or review .*, and label or labels$/u,
    );
    await expect(readAll(csv, sourceOf(`${'长'.repeat(5000)}\n`))).rejects.toThrow(
      new RegExp(`: 长{40}; it needs`, 'u'),
    );
    await expect(readAll(TEXT_READERS.csv, sourceOf('cat,评论\n好,一\n'))).rejects.toThrow(
      /it needs text or review or sentence or content$/u,
    );
    expect(await readAll(TEXT_READERS.csv, sourceOf('cat,review\n好,一\n'))).toEqual({
      values: [{ text: '一' }],
      errors: [],
    });
    expect(await readAll(csv, sourceOf(''))).toEqual({ values: [], errors: [] });
  });

  it('reads several labels a text, and none, from CSV', async () => {
    const { values } = await readAll(EXAMPLE_READERS.csv, 'text,labels\n一,a|b\n二,"[""a""]"\n三,\n');
    expect(values.map(({ labels }) => labels)).toEqual([['a', 'b'], ['a'], []]);
  });

  it('of an array that breaks off takes what stands before, and says from where on it cannot be read', async () => {
    const content = '[{"text":"一","label":"a"},\n 7,\n {"text":"二","label":"b"}, {"text":';
    expect(await readAll(EXAMPLE_READERS.jsonl, content)).toEqual({
      values: [
        { text: '一', labels: ['a'] },
        { text: '二', labels: ['b'] },
      ],
      errors: [2, 4],
    });
    expect(await readAll(EXAMPLE_READERS.jsonl, '[{"text":"一","label":"a"}] trailing')).toMatchObject({ errors: [2] });
  });

  it('refuses what is no UTF-8, no file, or no Parquet file, and says which', async () => {
    const path = join(folder, 'latin.csv');
    writeFileSync(path, Buffer.from([0x74, 0x65, 0x78, 0x74, 0x0a, 0xff, 0xfe]));
    for (const reader of [TEXT_READERS.lines, TEXT_READERS.csv, EXAMPLE_READERS.jsonl]) {
      await expect(readAll(reader, fileSource(path))).rejects.toThrow(`${path} is not UTF-8: save it as UTF-8`);
    }
    expect(() => fileSource(folder)).toThrow('it is a folder');
    expect(() => fileSource(join(folder, 'none'))).toThrow('cannot read');
    const broken = join(folder, 'broken.parquet');
    writeFileSync(broken, 'PAR1 and no more');
    await expect(readAll(EXAMPLE_READERS.parquet, fileSource(broken))).rejects.toThrow(
      'no Parquet file that can be read',
    );
  });

  it('holds no line or object that never ends', async () => {
    const endless = (first: string) => {
      async function* chunks() {
        yield first;
        for (let i = 0; i < 80; i++) yield 'x'.repeat(2 ** 19);
      }
      return { path: 'a', size: 1, head: async () => first, chunks };
    };
    await expect(readAll(TEXT_READERS.lines, endless(''))).rejects.toThrow('line 1 is longer');
    expect(await readAll(EXAMPLE_READERS.jsonl, endless('[{"text":"'))).toEqual({ values: [], errors: [1] });
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
  ])("reads FewCLUE's own %s", async (line, expected) => {
    expect(await detectExamples(sourceOf(line, 'train_0.json'))).toBe('fewclue');
    expect((await readAll(EXAMPLE_READERS.fewclue, line)).values).toEqual([expected]);
  });

  it.each([
    ['prodigy', '{"text":"a","label":"x","answer":"reject"}'],
    ['fewclue', '{"sentence1":"a","sentence2":"b","label":"-"}'],
    ['label-studio', '[{"data":{"text":"a"},"annotations":[]}]'],
  ] as const)('leaves out what nobody accepted or agreed on: %s', async (format, content) => {
    expect(await readAll(EXAMPLE_READERS[format], content)).toEqual({ values: [], errors: [] });
  });
});
