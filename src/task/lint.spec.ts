import { describe, expect, it } from 'vitest';
import { parseTask } from './definition.js';
import { lintTask, type Speller } from './lint.js';

/** A token a character; the emoji is unknown, case is kept. */
const speller: Speller = {
  encode: async (texts) => texts.map((text) => Array.from(text, (c) => (c === '😀' ? 1 : c.codePointAt(0)!))),
  tokenToId: (token) => (token === '[UNK]' ? 1 : undefined),
};

type Change = {
  labels?: unknown;
  templates?: string[];
  maxLength?: number;
  kind?: string;
  method?: string;
  input?: string;
  stream?: { input?: string; output?: string };
};

function task(change: Change = {}) {
  return parseTask(
    JSON.stringify({
      name: 'reviews',
      kind: 'single-label',
      labels: [
        { name: 'good', words: ['好', '赞'] },
        { name: 'bad', words: ['差'] },
      ],
      templates: ['{text}很{mask}'],
      ...change,
    }),
  );
}

const label = (name: string, ...words: string[]) => ({ name, words });

describe('lintTask', () => {
  it('finds nothing in a good task', async () => {
    expect(await lintTask(task(), speller, 512)).toEqual([]);
    const topics = { input: 'A_0.b-'.padEnd(245, 'c'), output: 'd'.repeat(249) };
    expect(await lintTask(task({ stream: topics }), speller, 512)).toEqual([]);
    const choices = task({ kind: 'multiple-choice', labels: [], templates: ['{text|blank:#idiom#}'] });
    expect(await lintTask(choices, speller, 512)).toEqual([]);
  });

  it.each([
    ['a shared word', { labels: [label('a', '好'), label('b', '好')] }, 'labels.1.words.0', 'is a word of "a" too'],
    ['a word it cannot spell', { labels: [label('a', '😀'), label('b', '好')] }, 'labels.0.words.0', 'cannot spell'],
    ['one label', { labels: [label('a', '好')] }, 'labels', 'at least two'],
    ['words of other length', { labels: [label('a', '好'), label('b', '不好')] }, 'labels.1.words.0', '2 tokens'],
    ['a label without words', { labels: [label('a'), label('b', '好')] }, 'labels.0.words', 'at least one word'],
    ['no mask', { templates: ['{text}很好'] }, 'templates.0', 'no {mask}'],
    ['two masks', { templates: ['{mask}{text}{mask}'] }, 'templates.0', '2 places'],
    ['a mistyped field', { templates: ['{txet}{mask}'] }, 'templates.0', 'did you mean {text}'],
    ['a mistyped mask', { templates: ['{text}{masks}'] }, 'templates.0', 'did you mean {mask}'],
    ['a second sentence where none is', { templates: ['{text}{textPair}{mask}'] }, 'templates.0', 'no field'],
    ['no field', { templates: ['很{mask}'] }, 'templates.0', 'no {text}'],
    ['an open brace', { templates: ['{text{mask}'] }, 'templates.0', 'brace'],
    ['an unknown option', { templates: ['{text|cut:3}{mask}'] }, 'templates.0', 'blank:MARKER'],
    ['no template', { templates: [] }, 'templates', 'at least one'],
    ['the same template twice', { templates: ['{text}{mask}', '{text}{mask}'] }, 'templates.1', 'twice'],
    ['a topic that Kafka cannot have', { stream: { input: '评论 texts' } }, 'stream.input', 'letters'],
    ['a topic of dots', { stream: { output: '..' } }, 'stream.output', 'letters'],
    ['no room for dead letters', { stream: { input: 'a'.repeat(246) } }, 'stream.input', 'at most 245'],
    ['an input that is its output', { stream: { input: 'a', output: 'a' } }, 'stream.output', 'name another'],
    ["the events' topic as input", { stream: { input: 'fewloop.events' } }, 'stream.input', 'name another'],
    ["the events' topic as output", { stream: { output: 'fewloop.events' } }, 'stream.output', 'name another'],
    ['dead letters as input', { stream: { input: 'a.dlq' } }, 'stream.input', 'name another'],
    ['dead letters as output', { stream: { output: 'fewloop.texts.dlq' } }, 'stream.output', 'name another'],
    ['too long for the model', { maxLength: 600 }, 'maxLength', '512'],
    ['too long a template', { maxLength: 8, templates: ['一二三四五{text}{mask}'] }, 'templates.0', 'leaves none'],
  ])('refuses %s', async (_, change, field, message) => {
    const findings = await lintTask(task(change), speller, 512);
    expect(findings).toContainEqual({ severity: 'error', field, message: expect.stringContaining(message) });
  });

  it.each([
    ['a field of the items', { templates: ['{title}{text}{mask}'] }, 'templates.0', 'every item must bring it'],
    ['unknown characters', { templates: ['😀{text}{mask}'] }, 'templates.0', 'does not know'],
    ['a word twice', { labels: [label('a', '好', '好'), label('b', '差')] }, 'labels.0.words.1', 'twice'],
    ['a pair of which one is shown', { kind: 'sentence-pair' }, 'templates.0', '{textPair}'],
  ])('warns of %s', async (_, change, field, message) => {
    const findings = await lintTask(task(change), speller, 512);
    expect(findings).toEqual([{ severity: 'warning', field, message: expect.stringContaining(message) }]);
  });

  const efl = [
    { name: 'good', description: '好评' },
    { name: 'bad', description: '差评' },
  ];
  const embeddedPair = { kind: 'sentence-pair', method: 'embedding' };
  it.each([
    ['a place for a label word', { input: '{text}很{mask}' }, 'input', 'label word'],
    ['a marker', { input: '{text|blank:#}' }, 'input', 'label word'],
    ['a hypothesis', { input: '{text}{sep}{hypothesis}' }, 'input', 'adds it itself'],
    ['a brace', { input: '{text' }, 'input', 'brace'],
    ['a mistyped field', { input: '{txet}' }, 'input', 'did you mean {text}'],
    ['no field', { input: '好' }, 'input', 'no {text}'],
    ['too long an input', { maxLength: 8, input: '一二三{sep}{text}' }, 'input', 'takes 6 of maxLength 8'],
    ['a pair in one segment', { ...embeddedPair, input: '{text}{textPair}' }, 'input', 'needs one {sep}'],
    ['an empty segment', { ...embeddedPair, input: '{text}{textPair}{sep}好' }, 'input', 'needs one {sep}'],
    ['three segments', { ...embeddedPair, input: '{text}{sep}{textPair}{sep}{text}' }, 'input', 'needs one {sep}'],
    [
      'descriptions that the input leaves no room for',
      { method: 'efl', labels: efl, maxLength: 12, input: '一二三四{text}' },
      'labels.0.description',
      'takes 9 of maxLength 12',
    ],
  ])('refuses as input %s', async (_, change, field, message) => {
    const findings = await lintTask(task({ maxLength: 32, ...change }), speller, 512);
    expect(findings).toContainEqual({ severity: 'error', field, message: expect.stringContaining(message) });
  });

  it('takes an input of fields, and a pair with more beside it', async () => {
    const reminder = { severity: 'warning', field: 'input', message: expect.stringContaining('every item must bring') };
    expect(await lintTask(task({ method: 'fine-tune', input: '{title}{sep}{text}' }), speller, 512)).toEqual([
      reminder,
    ]);
    const pair = { ...embeddedPair, input: '{title}：{text}{sep}{textPair}' };
    expect(await lintTask(task(pair), speller, 512)).toEqual([reminder]);
    const half = task({ kind: 'sentence-pair', method: 'fine-tune', input: '{text}' });
    expect(await lintTask(half, speller, 512)).toEqual([
      { severity: 'warning', field: 'input', message: 'does not show {textPair}' },
    ]);
  });

  it('looks at descriptions where efl shows them', async () => {
    const described = (a: string, b: string, maxLength = 16) => {
      const labels = [
        { name: 'good', description: a },
        { name: 'bad', description: b },
      ];
      const definition = { name: 'reviews', kind: 'single-label', method: 'efl', labels, maxLength };
      return lintTask(parseTask(JSON.stringify(definition)), speller, 512);
    };
    expect(await described('好评', '差评')).toEqual([]);
    const field = 'labels.1.description';
    expect(await described('好评', '好评')).toEqual([
      { severity: 'error', field, message: expect.stringContaining('is that of "good" too') },
    ]);
    expect(await described('好评', '一二三四五六七八九十')).toEqual([
      { severity: 'error', field, message: expect.stringContaining('takes 13 of maxLength 16') },
    ]);
    expect(await described('好评', '😀')).toEqual([
      { severity: 'warning', field, message: expect.stringContaining('does not know') },
    ]);
  });

  it('warns of a label that can hardly win, once its prior has been measured', async () => {
    const template = '{text}很{mask}';
    const means = { good: 0.97, bad: 0.03 };
    for (const [texts, on] of [
      [40, 'on average over 40 texts'],
      [0, 'for an empty text'],
    ] as const) {
      expect(await lintTask(task(), speller, 512, [{ template, means, texts }])).toEqual([
        { severity: 'warning', field: 'templates.0', message: expect.stringContaining(`"bad" 3.0 % ${on}`) },
      ]);
    }
    const labels = [label('a', '好'), label('b', '差'), label('c', '中')];
    const several = { template, means: { a: 0.99, b: 0.01, c: 0.002 }, texts: 40 };
    expect(await lintTask(task({ labels }), speller, 512, [several])).toEqual([
      { severity: 'warning', field: 'templates.0', message: expect.stringContaining('"b" 1.0 %, "c" 0.20 %') },
    ]);
    const fair = { template, means: { good: 0.8, bad: 0.2 }, texts: 40 };
    expect(await lintTask(task(), speller, 512, [fair])).toEqual([]);
  });
});
