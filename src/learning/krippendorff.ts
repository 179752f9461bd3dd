/**
 * How far labelers agree beyond chance: Krippendorff's alpha ("Computing Krippendorff's Alpha-Reliability", 2011), with
 * the distance of label sets of Passonneau ("Measuring Agreement on Set-valued Items", LREC 2006), which for single
 * labels is the nominal one. Pure.
 */

/**
 * `units`: of each question the label sets that it was given, by any labelers; those with fewer than two count for
 * nothing. 1: they agree on all; 0: as by chance. Null where nothing was compared, or only one label set ever given.
 */
export function krippendorffAlpha(units: readonly (readonly string[][])[]): number | null {
  const totals = new Map<string, number>();
  let pairable = 0;
  let observed = 0;
  for (const unit of units) {
    if (unit.length < 2) continue;
    pairable += unit.length;
    for (const [i, a] of unit.entries()) {
      totals.set(keyOf(a), (totals.get(keyOf(a)) ?? 0) + 1);
      for (const [j, b] of unit.entries()) if (i !== j) observed += distance(a, b) / (unit.length - 1);
    }
  }
  let expected = 0;
  for (const [a, countA] of totals) {
    for (const [b, countB] of totals) expected += countA * countB * distance(setOf(a), setOf(b));
  }
  if (expected === 0) return null;
  return 1 - ((pairable - 1) * observed) / expected;
}

/** MASI: 1 less the Jaccard similarity, weighed by whether one set is the other, within it, or overlaps it. In [0, 1]. */
function distance(a: readonly string[], b: readonly string[]): number {
  const common = a.filter((label) => b.includes(label)).length;
  if (common === a.length && common === b.length) return 0;
  const weight = common === Math.min(a.length, b.length) ? 2 / 3 : 1 / 3;
  return 1 - (weight * common) / (a.length + b.length - common);
}

/** One key a set: labels are in the task's order. */
function keyOf(labels: readonly string[]): string {
  return JSON.stringify(labels);
}

function setOf(key: string): string[] {
  return JSON.parse(key) as string[];
}
