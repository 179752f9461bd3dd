import { describe, expect, it } from 'vitest';
import { krippendorffAlpha } from './krippendorff.js';

/** A row a labeler, a character a question, a point where there is no answer. */
function units(...labelers: string[]): string[][][] {
  return Array.from(labelers[0]!, (_, i) =>
    labelers
      .map((row) => row[i]!)
      .filter((c) => c !== '.')
      .map((c) => [c]),
  );
}

describe("Krippendorff's alpha", () => {
  it('is that of the published examples (Krippendorff 2011, sections A to C)', () => {
    expect(krippendorffAlpha(units('0100000010', '1110010000'))).toBeCloseTo(0.095, 3);
    expect(krippendorffAlpha(units('aabbdcccedda', 'babbbccceddd'))).toBeCloseTo(0.692, 3);
    const four = units('123321412...', '1233224125.3', '.3332342251.', '12332441251.');
    expect(krippendorffAlpha(four)).toBeCloseTo(0.743, 3);
  });

  it('is 1 where all agree, and nothing where nothing is compared', () => {
    expect(krippendorffAlpha(units('ab', 'ab'))).toBe(1);
    expect(krippendorffAlpha(units('ab', '..'))).toBeNull();
    expect(krippendorffAlpha(units('aa', 'aa'))).toBeNull();
    expect(krippendorffAlpha([])).toBeNull();
  });

  it('takes label sets that overlap for nearer than ones that do not', () => {
    const alpha = (other: string[]) =>
      krippendorffAlpha([
        [['a', 'b'], other],
        [['c'], ['c']],
        [[], []],
      ])!;
    expect(alpha(['a'])).toBeGreaterThan(alpha(['a', 'd']));
    expect(alpha(['a', 'd'])).toBeGreaterThan(alpha(['d']));
    expect(alpha(['a', 'b'])).toBe(1);
  });
});
