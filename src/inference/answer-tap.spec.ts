import { expect, it } from 'vitest';
import { AnswerTap } from './answer-tap.js';
import type { Prediction } from './types.js';

const prediction = { label: 'a', labels: ['a'] } as Prediction;

function offer(tap: AnswerTap, version: number, texts: string[], task = 'news'): void {
  const items = new Map(texts.map((text) => [`key ${text}`, { text }]));
  const answers = texts.map((text) => ({ ok: true, prediction, itemKey: `key ${text}` }));
  tap.offer(task, version, items, answers);
}

it('copies what the one version answered and counts what the other did', () => {
  const tap = new AnswerTap();
  tap.open('news', { from: 1, watched: 2 });
  offer(tap, 1, ['一', '二', '三']);
  offer(tap, 2, ['四', '五']);
  offer(tap, 1, ['六'], 'other');
  expect(tap.waiting('news')).toBe(3);
  expect(tap.take('news', 2).map(({ item }) => item.text)).toEqual(['一', '二']);
  expect(tap.take('news', 2)).toEqual([{ item: { text: '三' }, itemKey: 'key 三', prediction }]);
  expect(tap.counts('news')).toEqual({ missed: 0, answered: 2 });
  expect(tap.counts('news')).toEqual({ missed: 0, answered: 0 });
});

it('leaves and counts what nobody takes, and failed answers', () => {
  const tap = new AnswerTap();
  tap.open('news', { from: 1, watched: 2 });
  offer(
    tap,
    1,
    Array.from({ length: 300 }, (_, i) => `文${i}`),
  );
  tap.offer('news', 1, new Map(), [{ ok: false }]);
  expect(tap.waiting('news')).toBe(256);
  expect(tap.counts('news').missed).toBe(44);
});

it('keeps nothing for a task that is not tapped, or not any more', () => {
  const tap = new AnswerTap();
  offer(tap, 1, ['一']);
  tap.open('news', { from: 1, watched: 2 });
  offer(tap, 1, ['二']);
  tap.close('news');
  offer(tap, 1, ['三']);
  expect(tap.waiting('news')).toBe(0);
});

it('lets go of all that waits where a text of the task is forgotten, and says so', () => {
  const tap = new AnswerTap();
  tap.open('news', { from: 1, watched: 2 });
  offer(tap, 1, ['一', '二']);
  tap.forget('other');
  expect([tap.waiting('news'), tap.forgotten('news')]).toEqual([2, 0]);
  tap.forget('news');
  expect([tap.waiting('news'), tap.forgotten('news'), tap.counts('news').missed]).toEqual([0, 1, 2]);
});
