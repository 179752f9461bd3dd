import { expect, it } from 'vitest';
import { tinyTask } from '../../test/fixtures/bundle.js';
import { keptFrom, withRoutingOf } from './answering.js';

const task = (changes: Record<string, unknown> = {}) => tinyTask('t', changes);

it('takes routing and the serving policy from the newer revision, and all else from the one it was made for', () => {
  const made = task({ serving: { policy: 'ensemble', minAgreement: 0.9 } });
  const changed = {
    maxLength: 16,
    labels: [
      { name: 'a', words: ['好'] },
      { name: 'c', words: ['坏'] },
    ],
  };
  const now = task({ ...changed, routing: { accept: 0.5 }, serving: { policy: 'cascade', minAgreement: 0.5 } });
  expect(withRoutingOf(made, now)).toEqual({
    ...made,
    routing: now.routing,
    serving: { ...made.serving, policy: 'cascade' },
  });
});

it('is the same object where nothing of it changed, so that what is known of it stays', () => {
  const made = task();
  expect(withRoutingOf(made, task({ maxLength: 16 }))).toBe(made);
});

it('tells what a version does not follow', () => {
  const made = task();
  expect(keptFrom(made, task({ routing: { accept: 0.5 }, pool: { capacity: 10 } }))).toEqual([]);
  const labels = [
    { name: 'a', words: ['赞'] },
    { name: 'b', words: ['差'] },
  ];
  expect(keptFrom(made, task({ maxLength: 16, labels }))).toEqual(['labels', 'maxLength']);
});
