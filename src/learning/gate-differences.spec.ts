import { describe, expect, it } from 'vitest';
import { confusionChanges, flipsOf, labelFigures } from './gate-differences.js';
import type { JudgedRow } from './gate-figures.js';

const rows = (...given: [labels: string, answer: string, confidence?: number][]): JudgedRow[] =>
  given.map(([labels, answer, confidence = 0.5]) => ({
    labels: labels.split(' '),
    answer: answer.split(' '),
    confidence,
    forecasts: [],
  }));

describe('label by label', () => {
  it('has precision, recall and F1 of both, and none where nothing can be divided', () => {
    const champion = rows(['a', 'a'], ['a', 'b'], ['b', 'b']);
    const challenger = rows(['a', 'a'], ['a', 'a'], ['b', 'a']);
    expect(labelFigures(champion, challenger, ['a', 'b', 'c'])).toEqual([
      {
        label: 'a',
        rows: 2,
        champion: { precision: 1, recall: 0.5, f1: 2 / 3 },
        challenger: { precision: 2 / 3, recall: 1, f1: 0.8 },
      },
      {
        label: 'b',
        rows: 1,
        champion: { precision: 0.5, recall: 1, f1: 2 / 3 },
        challenger: { precision: null, recall: 0, f1: 0 },
      },
      {
        label: 'c',
        rows: 0,
        champion: { precision: null, recall: null, f1: null },
        challenger: { precision: null, recall: null, f1: null },
      },
    ]);
    expect(labelFigures(null, challenger, ['a'])[0]!.champion).toBeNull();
  });

  it('counts each of several labels', () => {
    const [a] = labelFigures(null, rows(['a b', 'b'], ['a', 'a b']), ['a']);
    expect(a).toMatchObject({ rows: 2, challenger: { precision: 1, recall: 0.5 } });
  });
});

it('tells confusions whose number changed, the greatest change first', () => {
  const champion = rows(['a', 'b'], ['a', 'c'], ['a', 'c'], ['b', 'b'], ['b', 'b']);
  const challenger = rows(['a', 'b'], ['a', 'a'], ['a', 'a'], ['b', 'a'], ['b', 'b']);
  expect(confusionChanges(champion, challenger)).toEqual([
    { given: 'a', answered: 'c', champion: 2, challenger: 0 },
    { given: 'b', answered: 'a', champion: 0, challenger: 1 },
  ]);
});

it('counts rows with another answer by what became of them, and shows what was lost first', () => {
  const champion = rows(['a', 'a'], ['a', 'b'], ['a', 'b'], ['a', 'a'], ['a b', 'b a']);
  const challenger = rows(['a', 'b', 0.6], ['a', 'a', 0.9], ['a', 'c', 0.7], ['a', 'a'], ['a b', 'a b']);
  const flips = flipsOf(champion, challenger, ['一', '二', '三', '四', '五']);
  expect(flips).toMatchObject({ changed: 3, toWrong: 1, toRight: 1, stillWrong: 1 });
  expect(flips.examples).toEqual([
    { itemKey: '一', labels: ['a'], champion: ['a'], challenger: ['b'], confidence: 0.6 },
    { itemKey: '二', labels: ['a'], champion: ['b'], challenger: ['a'], confidence: 0.9 },
    { itemKey: '三', labels: ['a'], champion: ['b'], challenger: ['c'], confidence: 0.7 },
  ]);
});
