/**
 * When a version that was promoted goes back by itself. Pure. Each rule asks for enough answers of both versions, for a
 * difference that chance does not make, and for one that matters:
 * - failures: Wilson's 95 % intervals of the shares apart (Wilson 1927), by a point at least;
 * - latency: at the 95th percentile more than twice as long, and longer by 50 ms;
 * - labels: the Jensen-Shannon distance between what the two said of texts, each once, without what chance adds, larger by
 *   0.15 than it was on the same texts before the swap, which is the part that the new version is meant to have; by a
 *   permutation test;
 * - audit answers: Wilson's 95 % intervals of the accuracies apart.
 */
import type { ServedWindow } from '../inference/served-windows.js';
import { countCells, jensenShannon } from './divergence.js';
import { wilson } from './gate-statistics.js';
import type { Accuracy } from './live-accuracy.js';
import { generatorOf, permutationTestByTurns } from './permutation.js';

export interface Watched {
  before: ServedWindow;
  now: ServedWindow;
  /** Between the two versions' answers on the same texts, before the swap; null where that was not measured. */
  expectedShift: number | null;
  audit: { before: Accuracy | null; now: Accuracy | null };
}

const LEAST_ANSWERS = 50;
const LEAST_REQUESTS = 50;
const LEAST_LABELLED = 200;
const LEAST_AUDITED = 30;
const LEAST_FAILURES = 0.01;
const SLOWER = 2;
const SLOWER_MS = 50;
const SHIFT = 0.15;
/** Of a check; there is one in ten seconds or so, as long as the guard watches. */
const LEVEL = 1e-4;
const MAX_DRAWS = Math.ceil(2 / LEVEL);

/** Why it goes back, for people; none: it stays. */
export async function reasonsToGoBack(watched: Watched): Promise<string[]> {
  const reasons = [failures(watched), latency(watched), await labels(watched), audited(watched)];
  return reasons.filter((reason) => reason !== null);
}

function failures({ before, now }: Watched): string | null {
  const [old, own] = [before, now].map(({ answered, failed }) => ({ rows: answered + failed, failed }));
  if (own!.rows < LEAST_ANSWERS) return null;
  const share = wilson(own!.failed, own!.rows);
  const usual = old!.rows < LEAST_ANSWERS ? { point: 0, high: 0 } : wilson(old!.failed, old!.rows);
  if (share.low <= usual.high + LEAST_FAILURES) return null;
  return `${percent(share.point)} of its answers failed (${own!.failed} of ${own!.rows}), before ${percent(usual.point)}`;
}

function latency({ before, now }: Watched): string | null {
  if (Math.min(before.latenciesMs.length, now.latenciesMs.length) < LEAST_REQUESTS) return null;
  const [old, own] = [percentile(before.latenciesMs), percentile(now.latenciesMs)];
  if (own <= SLOWER * old || own <= old + SLOWER_MS) return null;
  return `one request in twenty takes ${own.toFixed(0)} ms or more, before ${old.toFixed(0)} ms`;
}

async function labels({ before, now, expectedShift }: Watched): Promise<string | null> {
  const [old, own] = [textsOf(before), textsOf(now)];
  if (expectedShift === null || Math.min(old, own) < LEAST_LABELLED) return null;
  const least = expectedShift + SHIFT;
  const distance = await labelShift(before.labels, now.labels, least);
  if (distance.p > LEVEL || distance.shift <= least) return null;
  const shares = [...now.labels].map(([label, count]) => {
    const [share, usual] = [count / own, (before.labels.get(label) ?? 0) / old];
    return { label, share, usual };
  });
  const most = shares.toSorted((a, b) => Math.abs(b.share - b.usual) - Math.abs(a.share - a.usual))[0]!;
  return (
    `its labels are ${distance.shift.toFixed(2)} from the version's before (Jensen-Shannon distance), on the same texts ` +
    `they were ${expectedShift.toFixed(2)}: ${most.label.replaceAll('\n', ' + ') || '(none)'} is ${percent(most.share)} of the texts, ` +
    `before ${percent(most.usual)}`
  );
}

function audited({ audit }: Watched): string | null {
  const { before, now } = audit;
  if (!before || !now || Math.min(before.rows, now.rows) < LEAST_AUDITED || now.high >= before.low) return null;
  return `${percent(now.accuracy!)} of ${now.rows} audit answers have it right, before ${percent(before.accuracy!)}`;
}

/**
 * `shift`: the Jensen-Shannon distance of two samples of labels in [0, 1], without what chance adds. Where that cannot be
 * more than `least` it is not told from nothing: the draws of a test cost a good part of a second.
 */
export async function labelShift(
  a: ReadonlyMap<string, number>,
  b: ReadonlyMap<string, number>,
  least = 0,
): Promise<{ shift: number; p: number }> {
  const names = [...new Set([...a.keys(), ...b.keys()])];
  const cellsOf = (counts: ReadonlyMap<string, number>) =>
    names.flatMap((name, cell) => Array.from({ length: counts.get(name) ?? 0 }, () => cell));
  const [first, second] = [cellsOf(a), cellsOf(b)];
  if (first.length === 0 || second.length === 0) return { shift: 0, p: 1 };
  const cells = Int32Array.from([...first, ...second]);
  const divergence = (order: Int32Array) =>
    jensenShannon(
      countCells(cells, names.length, order, 0, first.length),
      countCells(cells, names.length, order, first.length, cells.length),
    );
  if (Math.sqrt(divergence(Int32Array.from(cells.keys()))) <= least) return { shift: 0, p: 1 };
  const { observed, p, nullMean } = await permutationTestByTurns(cells.length, divergence, MAX_DRAWS, generatorOf(1));
  return { shift: Math.sqrt(Math.max(0, observed - nullMean)), p };
}

function percentile(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.ceil(0.95 * sorted.length) - 1]!;
}

const textsOf = ({ labels }: ServedWindow) => [...labels.values()].reduce((sum, texts) => sum + texts, 0);

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
