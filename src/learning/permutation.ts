import { setImmediate } from 'node:timers/promises';

/**
 * A permutation test that stops early (Besag & Clifford 1991, Biometrika 78:301-304). Pure; the draws follow a seed.
 * The p-value holds for every level: under the null P(p <= level) <= level, whatever the statistic and its ties. What is
 * plainly no difference costs a few dozen draws; only what is rare costs all of them.
 */

/** The statistic of the rows in `order`, of which the first `first` are one sample and the others the second. */
export type TwoSampleStatistic = (order: Int32Array) => number;

export interface PermutationResult {
  observed: number;
  p: number;
  /** Of the statistic under the null, by the draws that were made. */
  nullMean: number;
  draws: number;
}

/** So many draws as great as what was observed tell that it is nothing rare. */
const ENOUGH = 20;
/** The process does nothing else for so long. */
const TURN_MS = 10;

type Arguments = [rows: number, statistic: TwoSampleStatistic, maxDraws: number, random: () => number];

/** `maxDraws` of at least 1 / level - 1, or no p-value can reach the level. */
export function permutationTest(...test: Arguments): PermutationResult {
  const drawing = draw(...test);
  let step = drawing.next();
  while (!step.done) step = drawing.next();
  return step.value;
}

/** The same, for a process that has others to answer meanwhile. */
export async function permutationTestByTurns(...test: Arguments): Promise<PermutationResult> {
  const drawing = draw(...test);
  let turnEndsAt = performance.now() + TURN_MS;
  let step = drawing.next();
  while (!step.done) {
    if (performance.now() >= turnEndsAt) {
      await setImmediate();
      turnEndsAt = performance.now() + TURN_MS;
    }
    step = drawing.next();
  }
  return step.value;
}

/** May be left for a while after each draw. */
function* draw(...[rows, statistic, maxDraws, random]: Arguments): Generator<void, PermutationResult> {
  const order = Int32Array.from({ length: rows }, (_, i) => i);
  const observed = statistic(order);
  // Sums in another order differ in their last digits: what is equal but for those counts as as great.
  const bar = observed - 1e-12 * Math.max(1, Math.abs(observed));
  let [asGreat, draws, sum] = [0, 0, 0];
  while (draws < maxDraws && asGreat < ENOUGH) {
    shuffle(order, random);
    const drawn = statistic(order);
    draws += 1;
    sum += drawn;
    if (drawn >= bar) asGreat += 1;
    yield;
  }
  const p = asGreat === ENOUGH ? ENOUGH / draws : (asGreat + 1) / (draws + 1);
  return { observed, p, nullMean: draws === 0 ? 0 : sum / draws, draws };
}

function shuffle(order: Int32Array, random: () => number): void {
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const kept = order[i]!;
    order[i] = order[j]!;
    order[j] = kept;
  }
}

/** Uniform in [0, 1), the same sequence for the same seed: mulberry32 (T. Ettinger, public domain). */
export function generatorOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
