import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { diverseOrder, type Point } from './diverse.js';

const at = (degrees: number, uncertainty = 1, label: string | null = 'a'): Point => {
  const radians = (degrees * Math.PI) / 180;
  return { embedding: Float32Array.of(Math.cos(radians), Math.sin(radians)), uncertainty, label };
};

const orderOf = (...given: Parameters<typeof diverseOrder>) => [...diverseOrder(...given)];

describe('diverseOrder', () => {
  it('begins with what stands for most, then goes to what is not covered yet', () => {
    // Two crowds and a loner: the middle of the larger crowd, that of the smaller, the loner.
    const points = [at(0), at(10), at(20), at(5), at(120), at(130), at(240, 0.5)];
    expect(orderOf(points).slice(0, 3)).toEqual([1, 4, 6]);
  });

  it('does not ask where the answer is known', () => {
    expect(orderOf([at(0), at(180, 0.01), at(30, 0.9)])).toEqual([0, 2, 1]);
  });

  it('asks twins last, the more uncertain one first', () => {
    expect(orderOf([at(0, 0.5), at(0, 0.7), at(0, 0.9), at(70)]).slice(0, 2)).toEqual([2, 3]);
  });

  it('counts what was answered as taken', () => {
    const points = [at(0), at(10), at(5), at(90, 0.5)];
    expect(orderOf(points)[0]).toBe(1);
    expect(orderOf(points, { answered: [at(10).embedding] })[0]).toBe(3);
  });

  it('takes labels by turns where it is asked to', () => {
    const points = [at(0, 1, 'a'), at(90, 1, 'a'), at(180, 1, 'a'), at(10, 0.1, 'b'), at(20, 0.1, 'b')];
    expect(orderOf(points, { byLabel: true }).map((i) => points[i]!.label)).toEqual(['a', 'b', 'a', 'b', 'a']);
    expect(orderOf(points).slice(0, 3)).toEqual([4, 2, 1]);
  });

  it('asks each once, whatever they are', () => {
    const point = fc.record({
      embedding: fc.tuple(fc.float({ noNaN: true }), fc.float({ noNaN: true })).map((xy) => Float32Array.from(xy)),
      uncertainty: fc.double({ min: 0, max: 1, noNaN: true }),
      label: fc.option(fc.constantFrom('a', 'b', 'c')),
    });
    fc.assert(
      fc.property(fc.array(point, { maxLength: 30 }), fc.boolean(), (points, byLabel) => {
        const finite = points.filter(({ embedding }) => embedding.every((x) => Math.abs(x) < 1e15));
        const order = orderOf(finite, { byLabel });
        expect([...order].sort((a, b) => a - b)).toEqual([...finite.keys()]);
      }),
    );
  });
});
