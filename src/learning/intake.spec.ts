import { describe, expect, it } from 'vitest';
import { parseTask } from '../task/definition.js';
import { checkedLabels, keyedItem, takeEach } from './intake.js';

const task = (changes: object = {}) =>
  parseTask(
    JSON.stringify({
      name: 't',
      kind: 'single-label',
      labels: [
        { name: 'good', words: ['好'], was: ['positive'] },
        { name: 'bad', words: ['差'] },
      ],
      templates: ['{text}很{mask}'],
      ...changes,
    }),
  );
const limits = { maxTextLength: 10 };

describe('keyedItem', () => {
  it('takes null for absent, with the same key', () => {
    const item = keyedItem(task(), { text: '好', textPair: null, choices: null, fields: null }, limits);
    expect(item).toEqual(keyedItem(task(), { text: '好' }, limits));
  });

  it('names the field at fault', () => {
    expect(() => keyedItem(task(), { text: '很'.repeat(11) }, limits)).toThrow(/^text: /);
    expect(() => keyedItem(task(), { text: '好', textPair: '好' }, limits)).toThrow(/^textPair: /);
  });
});

describe('checkedLabels', () => {
  const item = { text: '好', choices: null };

  it('gives labels by their present names', () => {
    expect(checkedLabels(task(), item, ['positive'])).toEqual(['good']);
    expect(checkedLabels(task(), item, ['bad'])).toEqual(['bad']);
  });

  it.each([[['other']], [[]], [['good', 'bad']], ['good'], [null], [[7]]])('refuses %j', (labels) => {
    expect(() => checkedLabels(task(), item, labels)).toThrow(/^labels: /);
  });

  it('takes several or none where a text may have them', () => {
    const several = task({ kind: 'multi-label', templates: [] });
    expect(checkedLabels(several, item, ['bad', 'positive', 'good'])).toEqual(['good', 'bad']);
    expect(checkedLabels(several, item, [])).toEqual([]);
    expect(() => checkedLabels(several, item, ['bad', 'other'])).toThrow('"other" is not one of');
  });

  it('takes one of the choices', () => {
    const choice = task({ kind: 'multiple-choice', labels: [] });
    expect(checkedLabels(choice, { text: '好', choices: ['甲', '乙'] }, ['乙'])).toEqual(['乙']);
    expect(() => checkedLabels(choice, { text: '好', choices: ['甲', '乙'] }, ['丙'])).toThrow('丙');
  });
});

describe('takeEach', () => {
  it('tells what was refused and throws defects', () => {
    const { taken, refused } = takeEach(['好', ''], (text) => keyedItem(task(), { text }, limits).text);
    expect(taken).toEqual(['好']);
    expect(refused).toEqual([{ index: 1, code: 'BAD_INPUT', message: expect.stringContaining('empty') as string }]);
    expect(() => takeEach([1], () => JSON.parse('{'))).toThrow(SyntaxError);
  });
});
