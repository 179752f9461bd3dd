import { describe, expect, it } from 'vitest';
import { parseTask } from './definition.js';
import { labelsOf, validateItem } from './item.js';
import type { Item } from './types.js';

const labels = [
  { name: 'a', words: ['好'] },
  { name: 'b', words: ['差'] },
];
const single = parseTask(JSON.stringify({ name: 't', kind: 'single-label', labels, templates: ['{text}{mask}'] }));
const pair = parseTask(
  JSON.stringify({ name: 't', kind: 'sentence-pair', labels, templates: ['{text}{mask}{textPair}{title}'] }),
);
const seen = { ...single, input: '{title}{sep}{text}' };
const choice = parseTask(JSON.stringify({ name: 't', kind: 'multiple-choice', templates: ['{text|blank:#idiom#}'] }));
const limits = { maxTextLength: 100 };

describe('validateItem', () => {
  it.each([
    [single, { text: '好😀\u0001' }],
    [single, { text: 'x', textPair: null, choices: null, fields: null }],
    [single, { text: 'x', fields: { a: { b: [1, null, 'c'] } } }],
    [pair, { text: 'x', textPair: 'y', fields: { title: 'z' } }],
    [choice, { text: '他#idiom#', choices: ['甲', '乙'] }],
    // PET does not see the input.
    [seen, { text: 'x' }],
    [
      { ...seen, method: ['pet' as const, 'efl' as const] },
      { text: 'x', fields: { title: 'z' } },
    ],
  ])('takes %#', (task, item) => {
    expect(() => validateItem(task, item as Item, limits)).not.toThrow();
  });

  it.each([
    [single, {}, 'text'],
    [single, { text: 7 }, 'text'],
    [single, { text: '' }, 'text'],
    [single, { text: ' \t\u3000\ufeff' }, 'text'],
    [single, { text: 'a\ud800b' }, 'text'],
    [single, { text: 'a\0b' }, 'text'],
    [single, { text: 'x'.repeat(101) }, 'text'],
    [single, { text: 'x', textPair: 'y' }, 'textPair'],
    [single, { text: 'x', choices: ['a', 'b'] }, 'choices'],
    [single, { text: 'x', fields: [1] }, 'fields'],
    [single, { text: 'x', fields: { a: '\0' } }, 'fields.a'],
    [single, { text: 'x', fields: { a: Number.NaN } }, 'fields.a'],
    [single, { text: 'x', fields: { a: 'y'.repeat(200) } }, 'fields'],
    [pair, { text: 'x' }, 'textPair'],
    [pair, { text: 'x', textPair: 'y' }, 'fields.title'],
    [pair, { text: 'x', textPair: 'y', fields: { title: 3 } }, 'fields.title'],
    [{ ...seen, method: ['embedding' as const] }, { text: 'x' }, 'fields.title'],
    [choice, { text: 'x#idiom#' }, 'choices'],
    [choice, { text: 'x#idiom#', choices: 'ab' }, 'choices'],
    [choice, { text: 'x#idiom#', choices: ['a'] }, 'choices'],
    [choice, { text: 'x#idiom#', choices: ['a', 'a'] }, 'choices'],
    [choice, { text: 'x#idiom#', choices: ['a', 4] }, 'choices.1'],
    [choice, { text: 'x', choices: ['a', 'b'] }, 'text'],
  ])('refuses %#', (task, item, field) => {
    expect(() => validateItem(task, item as Item, limits, 'inputs.3.')).toThrow(
      expect.objectContaining({ code: 'BAD_INPUT', field: `inputs.3.${field}` }),
    );
  });
});

it('a choice is its own label', () => {
  expect(labelsOf(single, { text: 'x' })).toEqual(['a', 'b']);
  expect(labelsOf(choice, { text: 'x', choices: ['甲', '乙'] })).toEqual(['甲', '乙']);
});
