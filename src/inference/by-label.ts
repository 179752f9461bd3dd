/** Numbers that a manifest keeps by label, as steps take them. */

/** In the order of `labels`. One that is called as what every object has, "constructor", has no number by that. */
export function inOrder(byLabel: Record<string, number>, labels: string[], otherwise: number): number[] {
  return labels.map((label) => (Object.hasOwn(byLabel, label) ? byLabel[label]! : otherwise));
}
