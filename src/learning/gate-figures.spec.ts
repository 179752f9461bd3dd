import { describe, expect, it } from 'vitest';

import { augrcOf, calibrationErrorOf, compareFigures, isRight, macroF1Of, type JudgedRow } from './gate-figures.js';

const all = (count: number) => Array.from({ length: count }, (_, i) => i);
const row = (labels: string[], answer: string[], probability = 0.8): JudgedRow => ({
  labels,
  answer,
  confidence: probability,
  forecasts: [{ probability, hit: isRight({ labels, answer }) }],
});
const macroF1 = (labels: string[], answers: string[]) => {
  const rows = labels.map((label, i) => row([label], [answers[i]!]));
  return macroF1Of(rows)(all(rows.length));
};

it('is right where the labels are the same set', () => {
  expect(isRight({ labels: ['a', 'b'], answer: ['b', 'a'] })).toBe(true);
  expect(isRight({ labels: [], answer: [] })).toBe(true);
  expect(isRight({ labels: ['a'], answer: [] })).toBe(false);
  expect(isRight({ labels: ['a'], answer: ['b'] })).toBe(false);
});

describe('macro F1', () => {
  it('is the mean over labels', () => {
    expect(macroF1(['a', 'a', 'b', 'b'], ['a', 'a', 'b', 'b'])).toBe(1);
    // a: 2·1/(2+1); b: 2·1/(1+2)
    expect(macroF1(['a', 'a', 'b'], ['a', 'b', 'b'])).toBeCloseTo(2 / 3);
    expect(macroF1(['a'], ['b'])).toBe(0);
  });

  it('counts each of several labels', () => {
    // a: 2·1/(1+2); b: 2·1/(1+1); c: 0
    const rows = [row(['a', 'b'], ['a', 'b']), row(['c'], ['a'])];
    expect(macroF1Of(rows)([0, 1])).toBeCloseTo((2 / 3 + 1 + 0) / 3);
    expect(macroF1Of([row([], [])])([0])).toBe(1);
  });
});

describe('AUGRC', () => {
  it('is the mean over coverages of the share that is covered and wrong', () => {
    const rows = [row(['a'], ['a'], 0.9), row(['a'], ['b'], 0.8), row(['a'], ['a'], 0.7), row(['a'], ['b'], 0.6)];
    // Errors among the surest 1, 2, 3, 4 of 4 rows: 0, 1, 1, 2.
    expect(augrcOf(rows)(all(4))).toBeCloseTo((0 + 1 + 1 + 2) / 4 / 4);
    expect(augrcOf(rows)([0, 0, 2, 2])).toBe(0);
  });

  it('has rows of equal confidence each as wrong as they are on average', () => {
    const rows = [row(['a'], ['b'], 0.5), row(['a'], ['a'], 0.5)];
    expect(augrcOf(rows)([0, 1])).toBeCloseTo((0.5 + 1) / 2 / 2);
    expect(augrcOf(rows)([1, 0])).toBeCloseTo((0.5 + 1) / 2 / 2);
  });
});

describe('calibration error', () => {
  it('is nothing where probabilities are shares, and the distance where they are not', () => {
    const said = (probability: number, hits: number) =>
      all(100).map((i): JudgedRow => ({
        labels: [],
        answer: [],
        confidence: 0.5,
        forecasts: [{ probability, hit: i % 10 < hits }],
      }));
    expect(calibrationErrorOf(said(0.8, 8))(all(100))).toBeCloseTo(0);
    expect(calibrationErrorOf(said(0.9, 6))(all(100))).toBeCloseTo(0.3);
  });

  it('has bins of equal mass, as the trainer has them', () => {
    // Computed by calibration_error of trainer/fewloop_trainer/evaluate.py.
    const rows = all(23).map((i): JudgedRow => {
      const probability = ((i * 7) % 23) / 23;
      return { labels: [], answer: [], confidence: 0.5, forecasts: [{ probability, hit: i % 3 === 0 }] };
    });
    expect(calibrationErrorOf(rows)(all(23))).toBeCloseTo(0.22117202268431005, 12);
  });
});

describe('compared figures', () => {
  it('have an interval around their difference', () => {
    const champion = all(60).map((i) => row(['a'], [i % 2 ? 'a' : 'b']));
    const challenger = all(60).map((i) => row(['a'], [i % 6 ? 'a' : 'b']));
    const { macroF1: f1, calibrationError, ...others } = compareFigures(champion, challenger);
    const difference = f1.challenger! - f1.champion!;
    expect(f1.interval!.low).toBeLessThan(difference);
    expect(f1.interval!.high).toBeGreaterThan(difference);
    expect(f1.interval!.low).toBeGreaterThan(0);
    expect(calibrationError.champion).toBeCloseTo(0.3);
    expect(others.accuracy).toMatchObject({ champion: expect.any(Number), challenger: 50 / 60 });
    expect(compareFigures(champion, challenger)).toEqual({ macroF1: f1, calibrationError, ...others });
  });

  it('are the same for the same answers, and have no interval on few rows or alone', () => {
    const rows = all(20).map((i) => row(['a'], [i % 2 ? 'a' : 'b']));
    expect(compareFigures(rows, rows).macroF1.interval).toEqual({ low: 0, high: 0 });
    expect(compareFigures(rows.slice(0, 9), rows.slice(0, 9)).macroF1.interval).toBeNull();
    expect(compareFigures(null, rows)).toMatchObject({ macroF1: { champion: null, interval: null } });
    expect(compareFigures([], []).macroF1).toEqual({ champion: null, challenger: null, interval: null });
  });
});
