/**
 * Questions that are uncertain and stand for many others like them: of the closest calls those that cover the rest best,
 * greedily (facility location; Wei, Iyer & Bilmes 2015, "Submodularity in Data Subset Selection and Active Learning",
 * ICML), where to cover a text counts by how uncertain it is. Pure.
 */

export interface Point {
  /** L2-normalised. */
  embedding: Float32Array;
  /** In [0, 1]; 1: the members could as well guess. */
  uncertainty: number;
  /** What it is predicted to be. */
  label: string | null;
}

/**
 * Indices of `points` in the order in which they are to be asked, one at a time, for each takes a look at every pair. A
 * text is covered by what was taken as far as it is like (cosine, 0 at least) the likest of them; each next one adds
 * most to the uncertainty that is covered, Σⱼ uncertaintyⱼ · max(0, likeᵢⱼ − coveredⱼ), and of equals is the most
 * uncertain. `byLabel`: labels by turns, those with the fewest taken first, as long as they have points.
 */
export function* diverseOrder(points: readonly Point[], { byLabel = false } = {}): Generator<number, void> {
  const likeness = likenessOf(points);
  const left = new Set(points.keys());
  const taken = new Map<string | null, number>();
  const covered = new Float32Array(points.length);
  const gainOf = (i: number): number => {
    const like = likeness[i]!;
    let gain = 0;
    for (let j = 0; j < like.length; j++) {
      const more = like[j]! - covered[j]!;
      if (more > 0) gain += points[j]!.uncertainty * more;
    }
    return gain;
  };
  while (left.size > 0) {
    const open = byLabel ? [...left].map((i) => points[i]!.label) : [];
    const turn = byLabel ? fewest(open, taken) : undefined;
    let best: number | undefined;
    let bestGain = -1;
    for (const i of left) {
      const { label, uncertainty } = points[i]!;
      if (turn !== undefined && label !== turn) continue;
      const gain = gainOf(i);
      if (gain > bestGain || (gain === bestGain && uncertainty > points[best!]!.uncertainty)) {
        [best, bestGain] = [i, gain];
      }
    }
    const { label } = points[best!]!;
    left.delete(best!);
    taken.set(label, (taken.get(label) ?? 0) + 1);
    const like = likeness[best!]!;
    for (let j = 0; j < like.length; j++) covered[j] = Math.max(covered[j]!, like[j]!);
    yield best!;
  }
}

/** Cosines of all pairs, 0 where they are negative; a row each. */
function likenessOf(points: readonly Point[]): Float32Array[] {
  const rows = points.map(() => new Float32Array(points.length));
  for (let i = 0; i < points.length; i++) {
    const { embedding } = points[i]!;
    for (let j = 0; j <= i; j++) {
      rows[i]![j] = rows[j]![i] = Math.max(0, dot(embedding, points[j]!.embedding));
    }
  }
  return rows;
}

function dot(a: Float32Array, b: Float32Array): number {
  let even = 0;
  let odd = 0;
  // Two sums side by side, which a processor adds at once.
  for (let i = 0; i + 1 < a.length; i += 2) {
    even += a[i]! * b[i]!;
    odd += a[i + 1]! * b[i + 1]!;
  }
  if (a.length % 2 === 1) even += a.at(-1)! * b.at(-1)!;
  return even + odd;
}

function fewest(labels: (string | null)[], taken: Map<string | null, number>): string | null {
  let best = labels[0] ?? null;
  for (const label of labels) if ((taken.get(label) ?? 0) < (taken.get(best) ?? 0)) best = label;
  return best;
}
