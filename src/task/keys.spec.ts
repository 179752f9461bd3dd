import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalJson, fraction, itemKey, normalise, splitGroup, splitOf } from './keys.js';

describe('keys', () => {
  it('a split group does not see case, width and space; an item key does', () => {
    expect(splitGroup(' ＡＢ\u3000c ')).toBe(splitGroup('ab C'));
    expect(itemKey({ text: 'a' })).not.toBe(itemKey({ text: 'A' }));
  });

  it('absent parts of an item do not count, present ones do', () => {
    expect(itemKey({ text: 'a', textPair: undefined })).toBe(itemKey({ text: 'a' }));
    expect(itemKey({ text: 'a', fields: { x: 1, y: 2 } })).toBe(itemKey({ text: 'a', fields: { y: 2, x: 1 } }));
    const keys = [
      { text: 'a' },
      { text: 'a', textPair: 'b' },
      { text: 'a', choices: ['b'] },
      { text: 'a', fields: {} },
    ];
    expect(new Set(keys.map(itemKey)).size).toBe(4);
  });

  it('space around a text does not count, whatever the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        expect(normalise(`\u3000${text} \n`)).toBe(normalise(text));
      }),
    );
  });

  it('splits 70, 10, 20', () => {
    const splits = Array.from({ length: 5000 }, (_, i) => splitOf(splitGroup(`text ${i}`)));
    const share = (split: string) => splits.filter((s) => s === split).length / splits.length;
    expect(share('train')).toBeCloseTo(0.7, 1);
    expect(share('dev')).toBeCloseTo(0.1, 1);
    expect(share('test')).toBeCloseTo(0.2, 1);
  });

  it('fractions are uniform, repeatable and not of one another', () => {
    const values = Array.from({ length: 5000 }, (_, i) => fraction('audit', 'task', `${i}`));
    expect(values.every((value) => value >= 0 && value < 1)).toBe(true);
    expect(values.filter((value) => value < 0.1).length / values.length).toBeCloseTo(0.1, 1);
    expect(fraction('audit', 'task', 'g')).toBe(fraction('audit', 'task', 'g'));
    expect(fraction('audit', 'task', 'g')).not.toBe(fraction('reservoir', 'task', 'g'));
  });

  it('canonical JSON sorts keys', () => {
    expect(canonicalJson({ b: 1, a: [1.0, 'é'] })).toBe('{"a":[1,"é"],"b":1}');
  });
});
