import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { Split, TaskDefinition } from '../task/types.js';
import { currentLabels, namedNow, trainingData, type DataCandidate, type DataExample } from './data-set.js';

const definition = {
  kind: 'single-label',
  labels: [
    { name: 'good', words: ['好'], was: ['positive'] },
    { name: 'bad', words: ['差'], was: [] },
  ],
  learning: { prior: 'estimated' },
} as unknown as TaskDefinition;

const plain = { textPair: null, choices: null, fields: null };

function example(text: string, label: string, split: Split, origin: DataExample['origin'] = 'IMPORT'): DataExample {
  return { ...plain, text, itemKey: `key ${text}`, splitGroup: `group ${text}`, labels: [label], split, origin };
}

function candidate(text: string, split: Split = 'train', reservoirRank: number | null = null): DataCandidate {
  return { ...plain, text, itemKey: `key ${text}`, splitGroup: `group ${text}`, split, state: 'OPEN', reservoirRank };
}

describe('labelled rows', () => {
  it('are train and dev, with the present names of labels', () => {
    const data = trainingData(
      definition,
      [
        example('a', 'positive', 'train'),
        example('b', 'bad', 'dev'),
        example('c', 'good', 'test'),
        example('d', 'gone', 'train'),
      ],
      [],
    );
    expect(data.labelled.map(({ text, label, split }) => [text, label, split])).toEqual([
      ['a', 'good', 'train'],
      ['b', 'bad', 'dev'],
    ]);
    expect(data.retired).toBe(1);
  });

  it('are no near-duplicates of what is held out', () => {
    const near = (row: DataExample, nearGroup: string) => ({ ...row, nearGroup });
    const data = trainingData(
      definition,
      [
        near(example('a', 'good', 'train'), 'n1'),
        near(example('b', 'bad', 'test', 'AUDIT'), 'n1'),
        near(example('c', 'bad', 'train'), 'n2'),
        near(example('d', 'good', 'train'), 'n2'),
      ],
      [
        { ...candidate('e'), nearGroup: 'n1' },
        { ...candidate('f'), nearGroup: 'n2' },
      ],
    );
    expect(data.labelled.map(({ text }) => text)).toEqual(['c', 'd']);
    expect(data.unlabelled.map(({ text }) => text)).toEqual(['f']);
  });

  it('of multiple choice name one of the choices', () => {
    const choices = { ...definition, kind: 'multiple-choice' as const, labels: [] };
    expect(currentLabels(choices, { labels: ['x'], choices: ['x', 'y'] })).toEqual(['x']);
    expect(currentLabels(choices, { labels: ['z'], choices: ['x', 'y'] })).toBeNull();
  });

  it('of several labels name those that there still are, in the order of the task', () => {
    const several = { ...definition, kind: 'multi-label' as const };
    const rows = [['bad', 'positive'], [], ['gone'], ['gone', 'bad']].map((labels, i) => ({
      ...example(`${i}`, '', 'train', 'AUDIT'),
      labels,
    }));
    const data = trainingData(several, rows, []);
    expect(data.labelled.map(({ labels }) => labels)).toEqual([['good', 'bad'], [], [], ['bad']]);
    expect(data.labelled[0]).not.toHaveProperty('label');
    expect(data).toMatchObject({ retired: 0, prior: null });
  });
});

describe('unlabelled rows', () => {
  it('begin with the reservoir, which is marked, and name a text once', () => {
    const twice = { ...candidate('b'), itemKey: 'another item of the same text' };
    const data = trainingData(
      definition,
      [],
      [candidate('b'), twice, candidate('r2', 'train', 0.5), candidate('r1', 'train', 0.1)],
    );
    expect(data.unlabelled.map(({ text, reservoir }) => [text, reservoir])).toEqual([
      ['r1', true],
      ['r2', true],
      ['b', undefined],
    ]);
  });

  it('are not labelled', () => {
    const labelled = { ...candidate('s'), state: 'LABELLED' as const };
    const data = trainingData(definition, [example('a', 'good', 'train')], [labelled, candidate('a'), candidate('o')]);
    expect(data.unlabelled.map(({ text }) => text)).toEqual(['o']);
  });

  it('are as many as the task file says, the reservoir first', () => {
    const many = Array.from({ length: 5200 }, (_, i) => candidate(`c${i}`, 'train', i === 5199 ? 0 : null));
    const labelled = [example('a', 'good', 'train')];
    const written = (learning: object): string[] =>
      trainingData({ ...definition, learning } as unknown as TaskDefinition, labelled, many).unlabelled.map(
        ({ text }) => text,
      );
    expect(written({})).toHaveLength(3000);
    const more = written({ unlabelled: 5100 });
    expect(more).toHaveLength(5100);
    expect(more[0]).toBe('c5199');
  });
});

describe('leakage', () => {
  const split = fc.constantFrom<Split>('train', 'dev', 'test');
  const text = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');

  it('is not: no group of dev or test trains, whatever was imported where', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(text, split, fc.constantFrom('good', 'bad', 'positive', 'gone'))),
        fc.array(fc.tuple(text, split)),
        (labelled, pool) => {
          const data = trainingData(
            definition,
            labelled.map(([name, where, label]) => example(name, label, where, 'AUDIT')),
            pool.map(([name, where]) => candidate(name, where)),
          );
          const heldOut = new Set(
            [...labelled, ...pool].filter(([, where]) => where !== 'train').map(([name]) => name),
          );
          for (const row of data.unlabelled) expect(heldOut).not.toContain(row.text);
          for (const row of data.labelled.filter((one) => one.split === 'train')) {
            expect(heldOut).not.toContain(row.text);
          }
          for (const row of data.labelled) expect(row.split).not.toBe('test');
        },
      ),
    );
  });
});

describe('an answer by present names', () => {
  it('has labels that became one once, and keeps what is gone', () => {
    const several = { ...definition, kind: 'multi-label' } as TaskDefinition;
    expect(namedNow(several, ['positive', 'good', 'gone'])).toEqual(['good', 'gone']);
    expect(namedNow(several, [])).toEqual([]);
  });

  it('is left alone where labels are choices', () => {
    expect(namedNow({ ...definition, kind: 'multiple-choice' }, ['positive'])).toEqual(['positive']);
  });
});

describe('prior', () => {
  const answers = (good: number, bad: number, split: Split = 'train') => [
    ...Array.from({ length: good }, (_, i) => example(`g${split}${i}`, 'good', split, 'AUDIT')),
    ...Array.from({ length: bad }, (_, i) => example(`b${split}${i}`, 'bad', split, 'AUDIT')),
  ];

  it('is the share of audit answers, smoothed', () => {
    expect(trainingData(definition, answers(28, 10), []).prior).toEqual([29 / 40, 11 / 40]);
  });

  it('is uniform with few answers, and does not look at dev or test', () => {
    expect(trainingData(definition, answers(10, 5), []).prior).toBeNull();
    expect(trainingData(definition, [...answers(10, 5), ...answers(0, 50, 'test')], []).prior).toBeNull();
    expect(
      trainingData(
        definition,
        Array.from({ length: 50 }, (_, i) => example(`${i}`, 'good', 'train')),
        [],
      ).prior,
    ).toBeNull();
  });
});
