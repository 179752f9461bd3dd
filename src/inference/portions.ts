/**
 * What many texts ask of the process itself is done in portions: whoever else waits for it, requests and heartbeats, goes
 * between. What is smaller than a portion is done at once.
 */
import { setImmediate } from 'node:timers/promises';

/** Weight of a portion. A row that is laid out is 1: some milliseconds, then. */
const PORTION = 256;

/** Labels that are ranked or listed in about the time of one row. */
export const LABELS_A_ROW = 64;

/** As `values.map(step)`. `weightOf`: what a value costs, in rows. */
export async function inPortions<T, R>(
  values: Iterable<T>,
  weightOf: (value: T) => number,
  step: (value: T, i: number) => R,
): Promise<R[]> {
  const results: R[] = [];
  let weight = 0;
  for (const value of values) {
    if (weight >= PORTION) {
      await setImmediate();
      weight = 0;
    }
    results.push(step(value, results.length));
    weight += weightOf(value);
  }
  return results;
}
