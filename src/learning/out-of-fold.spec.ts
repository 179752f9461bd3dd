import { describe, expect, it } from 'vitest';

import type { TaskDefinition } from '../task/types.js';
import { answerOf, outOfFoldOf } from './out-of-fold.js';

const definition = { kind: 'single-label', labels: [{ name: 'a' }, { name: 'b' }] } as unknown as TaskDefinition;

describe('out-of-fold answers', () => {
  it('are read from a run’s report, apart from its figures', () => {
    const rows = [{ itemKey: 'k', label: 'a', distribution: [0.4, 0.6] }];
    const several = [{ itemKey: 'k', labels: [], distribution: [0.4, 0.6] }];
    expect(outOfFoldOf({ kind: 'run', outOfFold: { folds: 5, rows: [...rows, ...several] } })).toEqual({
      rows: [{ itemKey: 'k', labels: ['a'], distribution: [0.4, 0.6] }, ...several],
      figures: { folds: 5 },
    });
    expect(outOfFoldOf({ kind: 'zero-shot' })).toBeNull();
  });

  it('name the best label', () => {
    expect(answerOf(definition, {}, null, [0.4, 0.6])).toEqual(['b']);
    const choice = { ...definition, kind: 'multiple-choice' as const, labels: [] };
    expect(answerOf(choice, {}, ['x', 'y'], [0.7, 0.3])).toEqual(['x']);
    expect(answerOf(definition, {}, null, [1])).toBeNull();
    const several = { ...definition, kind: 'multi-label' as const };
    expect(answerOf(several, { a: 0.3 }, null, [0.4, 0.6])).toEqual(['a', 'b']);
    expect(answerOf(several, { b: 0.7 }, null, [0.4, 0.6])).toEqual([]);
  });
});
