/**
 * Questions that are uncertain and unlike each other: farthest-first traversal of the encoder's embeddings (Gonzalez
 * 1985; core-set selection, Sener & Savarese 2018), each step weighted by how uncertain the text is. Pure.
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
 * Indices of `points` in the order in which they are to be asked, one at a time, for each takes as long as all that are
 * left. The first is the most uncertain one; each next one has the greatest product of uncertainty and distance
 * (1 − cosine) to the nearest that was taken. `byLabel`: labels by turns, those with the fewest taken first, as long as
 * they have points.
 */
export function* diverseOrder(points: readonly Point[], { byLabel = false } = {}): Generator<number, void> {
  const left = new Set(points.keys());
  const taken = new Map<string | null, number>();
  // Nothing is near before anything was taken.
  const distance = points.map(() => 1);
  while (left.size > 0) {
    const turn = byLabel
      ? fewest(
          [...left].map((i) => points[i]!.label),
          taken,
        )
      : undefined;
    let best: number | undefined;
    let bestWorth = -1;
    for (const i of left) {
      const { label, uncertainty } = points[i]!;
      if (turn !== undefined && label !== turn) continue;
      const worth = uncertainty * distance[i]!;
      if (worth > bestWorth) [best, bestWorth] = [i, worth];
    }
    const next = points[best!]!;
    left.delete(best!);
    taken.set(next.label, (taken.get(next.label) ?? 0) + 1);
    for (const i of left) distance[i] = Math.min(distance[i]!, distanceOf(points[i]!.embedding, next.embedding));
    yield best!;
  }
}

function fewest(labels: (string | null)[], taken: Map<string | null, number>): string | null {
  let best = labels[0] ?? null;
  for (const label of labels) if ((taken.get(label) ?? 0) < (taken.get(best) ?? 0)) best = label;
  return best;
}

function distanceOf(a: Float32Array, b: Float32Array): number {
  let dot = 0;
  for (let i = 0; i < a.length; i++) dot += a[i]! * b[i]!;
  return Math.max(0, 1 - dot);
}
