import { describe, expect, it } from 'vitest';
import { splitGroup } from '../task/keys.js';
import { areNear, groupNear, sketchOf } from './near-duplicates.js';

const plain = { textPair: null, choices: null, fields: null };
const sketch = (text: string, task = 't') => sketchOf(task, { ...plain, text })!;
const item = (text: string, more: object = {}) => ({
  ...plain,
  itemKey: text,
  splitGroup: splitGroup(text),
  text,
  ...more,
});

function groups(texts: string[], known: { nearGroup: string; text: string }[] = []) {
  return groupNear(
    't',
    texts.map((text) => ({ item: item(text), sketch: sketch(text) })),
    known,
  );
}

const REVIEW = '这家店的东西质量很好，发货也很快，包装完整，客服态度不错，下次还会再来购买，推荐给大家';

describe('near-duplicates', () => {
  it('are texts of which few characters differ', () => {
    expect(areNear(sketch(REVIEW), sketch(`${REVIEW}！！`))).toBe(true);
    expect(areNear(sketch(REVIEW), sketch(REVIEW.replace('很快', '挺快')))).toBe(true);
    expect(areNear(sketch(REVIEW), sketch(REVIEW.slice(0, 24)))).toBe(false);
    expect(areNear(sketch('质量好'), sketch('质量差'))).toBe(false);
  });

  it('are not a text and its negation', () => {
    expect(areNear(sketch(REVIEW), sketch(REVIEW.replace('会再', '不会再')))).toBe(false);
  });

  it('are found by their bands nearly always, others seldom, other tasks never', () => {
    const bandsMeet = (a: number[], b: number[]) => a.some((band) => b.includes(band));
    const random = seeded(7);
    let found = 0;
    let mistaken = 0;
    for (let i = 0; i < 300; i++) {
      const text = Array.from({ length: 40 }, () => String.fromCharCode(0x4e00 + random(3000))).join('');
      // 39 pairs, of which one changed character changes two: a similarity of 0.9.
      const changed = `${text.slice(0, 20)}啊${text.slice(21)}`;
      const other = Array.from({ length: 40 }, () => String.fromCharCode(0x4e00 + random(3000))).join('');
      if (bandsMeet(sketch(text).bands, sketch(changed).bands)) found += 1;
      if (bandsMeet(sketch(text).bands, sketch(other).bands)) mistaken += 1;
      expect(bandsMeet(sketch(text).bands, sketch(text, 'u').bands)).toBe(false);
    }
    expect(found).toBeGreaterThan(290);
    expect(mistaken).toBe(0);
  });

  it('take the group of the first, which leads it, known or new', () => {
    const [first, second, other] = groups([REVIEW, `${REVIEW}。`, '完全不同的一条评论']);
    expect(second!.nearGroup).toBe(first!.nearGroup);
    expect(second!.bands).toBeNull();
    expect(first!.bands).toHaveLength(6);
    expect(other!.nearGroup).not.toBe(first!.nearGroup);
    const [later] = groups([`${REVIEW}~`], [{ nearGroup: 'g', text: REVIEW }]);
    expect(later).toEqual({ nearGroup: 'g', bands: null });
  });

  it('the same text up to case and spaces is one group, without any leader', () => {
    const [a] = groups(['Ｓａｍｅ TEXT']);
    const [b] = groups(['same  text']);
    expect(b!.nearGroup).toBe(a!.nearGroup);
  });

  it('pairs, choices and fields are compared with nothing', () => {
    for (const more of [{ textPair: 'x' }, { choices: ['a'] }, { fields: { a: 1 } }]) {
      expect(sketchOf('t', { ...item(REVIEW), ...more })).toBeNull();
    }
    const twins = [item(REVIEW, { textPair: '甲' }), item(REVIEW, { textPair: '乙' })];
    const [a, b] = groupNear(
      't',
      twins.map((one) => ({ item: one, sketch: null })),
      [],
    );
    expect(a).toMatchObject({ bands: null });
    expect(b!.nearGroup).not.toBe(a!.nearGroup);
    expect(sketch('a')).toBeNull();
  });
});

/** Numbers in [0, below), always the same ones (Park & Miller 1988). */
function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 48271) % 2147483647;
    return state % below;
  };
}
