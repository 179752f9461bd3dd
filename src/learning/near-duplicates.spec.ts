import { describe, expect, it } from 'vitest';
import { splitGroup } from '../task/keys.js';
import { areNear, groupNear, LEADERS_A_BAND, sketchOf, type Leader } from './near-duplicates.js';

const plain = { textPair: null, choices: null, fields: null };
const sketch = (text: string, task = 't') => sketchOf(task, { ...plain, text })!;
const item = (text: string, more: object = {}) => ({
  ...plain,
  itemKey: text,
  splitGroup: splitGroup(text),
  text,
  ...more,
});

function groups(texts: string[], known: Leader[] = []) {
  return groupNear(
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
    const [later] = groups([`${REVIEW}~`], [{ nearGroup: 'g', text: REVIEW, bands: sketch(REVIEW).bands }]);
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
      twins.map((one) => ({ item: one, sketch: null })),
      [],
    );
    expect(a).toMatchObject({ bands: null });
    expect(b!.nearGroup).not.toBe(a!.nearGroup);
    expect(sketch('a')).toBeNull();
  });

  it('are looked for among a bounded number of leaders, however many share their bands, and each once', () => {
    const random = seeded(11);
    const digits = (count: number) => Array.from({ length: count }, () => random(10)).join('');
    const orders = Array.from(
      { length: 1000 },
      () => `您有新的外卖订单，编号${digits(10)}，预计${digits(4)}送达，请保持电话畅通`,
    );
    // As earlier releases left it: each leads by all of its bands.
    const all = orders.slice(1).map((text, i) => ({ nearGroup: `${i}`, text, bands: sketch(text).bands }));
    let compared = 0;
    const watched = Object.defineProperty(sketch(orders[0]!), 'negations', { get: () => (compared++, '') });
    groupNear([{ item: item(orders[0]!), sketch: watched }], all);
    expect(compared).toBeGreaterThan(LEADERS_A_BAND);
    expect(compared).toBeLessThanOrEqual(6 * LEADERS_A_BAND);

    const grouped = groups(orders);
    const byBand = Map.groupBy(
      grouped.flatMap(({ bands }) => bands ?? []),
      (band) => band,
    );
    expect(Math.max(...[...byBand.values()].map(({ length }) => length))).toBe(LEADERS_A_BAND);
    const leaders = grouped.flatMap(({ nearGroup, bands }, i) =>
      bands ? [{ nearGroup, bands, text: orders[i]! }] : [],
    );
    const near = groups(
      orders.map((text) => `${text}。`),
      leaders,
    );
    const found = near.filter(({ nearGroup }, i) => nearGroup === grouped[i]!.nearGroup);
    expect(found.length).toBeGreaterThan(950);
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
