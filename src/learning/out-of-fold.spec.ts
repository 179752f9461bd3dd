import { describe, expect, it } from 'vitest';

import type { TaskDefinition } from '../task/types.js';
import { bestLabel, outOfFoldOf } from './out-of-fold.js';

const definition = { kind: 'single-label', labels: [{ name: 'a' }, { name: 'b' }] } as unknown as TaskDefinition;

describe('out-of-fold answers', () => {
  it('are read from a run’s report, apart from its figures', () => {
    const rows = [{ itemKey: 'k', label: 'a', distribution: [0.4, 0.6] }];
    expect(outOfFoldOf({ kind: 'run', outOfFold: { folds: 5, rows } })).toEqual({ rows, figures: { folds: 5 } });
    expect(outOfFoldOf({ kind: 'zero-shot' })).toBeNull();
  });

  it('name the best label', () => {
    expect(bestLabel(definition, null, [0.4, 0.6])).toBe('b');
    expect(bestLabel({ ...definition, kind: 'multiple-choice', labels: [] }, ['x', 'y'], [0.7, 0.3])).toBe('x');
    expect(bestLabel(definition, null, [1])).toBeNull();
  });
});
