/**
 * Members asked in turn, by falling weight, and no further one once those who are left cannot change the label: what the
 * leading label is ahead by is more than their weight. The label is then the one that all of them would have given.
 * Twin of `ask_in_turn` in `trainer/fewloop_trainer/scores.py`; `test/contract/scores.json` holds both to the same numbers.
 */
import { sharesOf } from './combine.js';

/** Sums of the same numbers in another order may differ by so much. */
const ROUNDING = 1e-12;

/** By falling weight; of equals the first. */
export function inTurn<M extends { weight: number }>(members: M[]): M[] {
  return members.toSorted((a, b) => b.weight - a.weight);
}

/** How many of the `members`, which are in turn, have to be asked before any answer of theirs could decide. */
export function fewestAsked(members: { weight: number }[]): number {
  const left = weightsLeft(members);
  return left.findIndex((weight) => 1 - weight > weight + ROUNDING) + 1;
}

/** Whether the label is certain once the first of the `members`, which are in turn, have given `said`. */
export function isDecided(members: { weight: number }[], said: number[][]): boolean {
  const shares = sharesOf(members.map(({ weight }) => weight));
  const sums = said[0]!.map((_, label) => said.reduce((sum, own, m) => sum + shares[m]! * own[label]!, 0));
  const [first = 0, second = 0] = sums.toSorted((a, b) => b - a);
  return first - second > weightsLeft(members)[said.length - 1]! + ROUNDING;
}

/** Behind each of them, of 1. */
function weightsLeft(members: { weight: number }[]): number[] {
  const shares = sharesOf(members.map(({ weight }) => weight));
  return shares.map((_, i) => shares.slice(i + 1).reduce((sum, share) => sum + share, 0));
}
