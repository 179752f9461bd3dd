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
 * uncertain. `byLabel`: labels by turns, those with the fewest taken first, as long as they have points. `answered`:
 * embeddings that count as taken before the first.
 */
export function* diverseOrder(
  points: readonly Point[],
  { byLabel = false, answered = [] }: { byLabel?: boolean; answered?: readonly Float32Array[] } = {},
): Generator<number, void> {
  const likeness = likenessOf(points);
  const uncertainties = Float64Array.from(points, ({ uncertainty }) => uncertainty);
  const left = new Set(points.keys());
  const taken = new Map<string | null, number>();
  const covered = Float32Array.from(points, ({ embedding }) =>
    answered.reduce((most, other) => Math.max(most, dot(embedding, other)), 0),
  );
  const gainOf = (i: number): number => {
    const like = likeness[i]!;
    let gain = 0;
    for (let j = 0; j < like.length; j++) {
      const more = like[j]! - covered[j]!;
      if (more > 0) gain += uncertainties[j]! * more;
    }
    return gain;
  };
  // What a text adds never grows (the sum is submodular): whichever still leads once its figure is new is the best, and
  // most figures need not be made new (Minoux 1978).
  const gains = Float64Array.from(points, (_, i) => gainOf(i));
  const newAt = new Int32Array(points.length);
  const leader = (turn: string | null | undefined): number => {
    let best = -1;
    for (const i of left) {
      if (turn !== undefined && points[i]!.label !== turn) continue;
      const ahead = best === -1 ? 1 : gains[i]! - gains[best]! || uncertainties[i]! - uncertainties[best]!;
      if (ahead > 0) best = i;
    }
    return best;
  };
  for (let step = 0; left.size > 0; step++) {
    const open = byLabel ? [...left].map((i) => points[i]!.label) : [];
    const turn = byLabel ? fewest(open, taken) : undefined;
    let best = leader(turn);
    while (newAt[best] !== step) {
      gains[best] = gainOf(best);
      newAt[best] = step;
      best = leader(turn);
    }
    const { label } = points[best]!;
    left.delete(best);
    taken.set(label, (taken.get(label) ?? 0) + 1);
    const like = likeness[best]!;
    for (let j = 0; j < like.length; j++) covered[j] = Math.max(covered[j]!, like[j]!);
    yield best;
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

/** Four sums side by side, which a processor adds at once. */
function dot(a: Float32Array, b: Float32Array): number {
  const { length } = a;
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let i = 0;
  for (; i + 3 < length; i += 4) {
    s0 += a[i]! * b[i]!;
    s1 += a[i + 1]! * b[i + 1]!;
    s2 += a[i + 2]! * b[i + 2]!;
    s3 += a[i + 3]! * b[i + 3]!;
  }
  for (; i < length; i++) s0 += a[i]! * b[i]!;
  return s0 + s1 + s2 + s3;
}

function fewest(labels: (string | null)[], taken: Map<string | null, number>): string | null {
  let best = labels[0] ?? null;
  for (const label of labels) if ((taken.get(label) ?? 0) < (taken.get(best) ?? 0)) best = label;
  return best;
}
