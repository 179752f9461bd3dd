/** What the gate says in words, and the figures beside the verdict. Pure. */
import type { PairedComparison } from './gate-statistics.js';

/** Of a hundred audit answers about thirty fall to dev and test: DESIGN's split. */
const HELD_OUT_SHARE = 0.3;

/** One or two sentences for the engineer who decides. */
export function describeComparison(comparison: PairedComparison, championVersion: number): string {
  const { rows, verdict, counts, pValue, interval, margin, difference } = comparison;
  if (difference === null) {
    return `No held-out row: answers to audit questions and imports bring them. ${whatWouldDecide(comparison)}`;
  }
  const points = (value: number) => `${value >= 0 ? '+' : '−'}${(100 * Math.abs(value)).toFixed(1)}`;
  const seen =
    `On ${rows} held-out rows the challenger is ${points(difference)} points from version ${championVersion} ` +
    `(95 % interval ${points(interval.low)} to ${points(interval.high)}; ${counts.onlyChallengerRight} rows only it ` +
    `has right, ${counts.onlyChampionRight} only the champion; exact McNemar p = ${pValue.toPrecision(2)})`;
  if (verdict === 'BETTER') return `${seen}: better.`;
  if (verdict === 'WORSE') return `${seen}: worse.`;
  if (verdict === 'NOT_WORSE') return `${seen}: not worse by the margin of ${(100 * margin).toFixed(1)} points.`;
  return `${seen}: undecided. ${whatWouldDecide(comparison)}`;
}

/** Of a task's first version. */
export function describeFirst({ rows, right }: { rows: number; right: number }): string {
  const seen = rows === 0 ? 'No held-out row says how good it is.' : `It has ${right} of ${rows} held-out rows right.`;
  return `No version is active: there is nothing to compare with. ${seen}`;
}

function whatWouldDecide({ neededRows, rows }: PairedComparison): string {
  const needed = [neededRows.toTellApart, neededRows.toBeNotWorse].filter((count) => count !== null);
  if (needed.length === 0) return 'If this difference is the true one, no number of rows would show it not worse.';
  // The formula is for planning; that many rows did not decide, where it says less than there are.
  const total = Math.max(rows + 1, Math.min(...needed));
  const answers = Math.ceil((total - rows) / HELD_OUT_SHARE);
  return (
    `About ${total} held-out rows would decide (with 80 % power, if this difference is the true one): ` +
    `some ${answers} more audit answers or imported rows.`
  );
}
