/**
 * Whether further answers still pay. Pure. Two signs:
 * - the learning curve: accuracy of the versions on the gate's held-out rows over the logarithm of their labels, a
 *   weighted line (each version by its binomial variance). Its slope is what twice the labels bring. The versions are
 *   judged on mostly the same rows, so that the interval is rather too wide than too narrow;
 * - stabilizing predictions (Bloodgood & Vijay-Shanker 2009, CoNLL, section 3): Cohen's (1960) kappa of successive
 *   versions on texts without labels, which needs no held-out rows; its mean over three is 0.99 or more.
 */
export interface CurveRow {
  /** Labelled texts that the version was trained on. */
  labels: number;
  /** Held-out rows, and those that it had right. */
  rows: number;
  right: number;
}

export interface Slope {
  /** Accuracy that twice the labels bring; 95 %. */
  perDoubling: number;
  low: number;
  high: number;
}

/** UNKNOWN: too few versions to tell. */
export type StoppingAdvice = 'UNKNOWN' | 'GO_ON' | 'STOP';

export interface Stopping {
  advice: StoppingAdvice;
  statement: string;
  slope: Slope | null;
  /** Mean of the last three; null where there are fewer. */
  agreement: number | null;
}

export const AGREEMENTS = 3;
const STABLE = 0.99;
const LEAST_VERSIONS = 3;
const Z = 1.959963984540054;

/** `kappas`: newest first. */
export function stoppingOf(curve: readonly CurveRow[], kappas: readonly number[]): Stopping {
  const slope = slopeOf(curve);
  const recent = kappas.slice(0, AGREEMENTS);
  const agreement = recent.length < AGREEMENTS ? null : recent.reduce((sum, kappa) => sum + kappa, 0) / AGREEMENTS;
  const figures = { slope, agreement };
  const gain = slope === null ? '' : `twice the labels bring ${points(slope.perDoubling)} (${range(slope)})`;
  if (agreement === null) {
    const statement = `Three runs after the first tell; so far ${gain || 'there is no curve'}.`;
    return { advice: slope !== null && slope.low > 0 ? 'GO_ON' : 'UNKNOWN', statement, ...figures };
  }
  const stable = `the last versions agree with kappa ${agreement.toFixed(3)}`;
  const told = gain ? `${stable}, and ${gain}` : stable;
  if (agreement < STABLE) return { advice: 'GO_ON', statement: `Answers still change the model: ${told}.`, ...figures };
  if (slope !== null && slope.low > 0) {
    return { advice: 'GO_ON', statement: `Answers still pay, though ${told}.`, ...figures };
  }
  return { advice: 'STOP', statement: `Further answers hardly pay: ${told}.`, ...figures };
}

/** Null with fewer than three versions, or where all have as many labels. */
export function slopeOf(curve: readonly CurveRow[]): Slope | null {
  const usable = curve.filter(({ rows, labels }) => rows > 0 && labels > 0);
  if (usable.length < LEAST_VERSIONS) return null;
  let [weights, meanX, meanY] = [0, 0, 0];
  const rows = usable.map(({ labels, rows: count, right }) => {
    // Agresti and Coull (1998): so that a version that had all right is not infinitely certain.
    const share = (right + 2) / (count + 4);
    const weight = count / (share * (1 - share));
    const [x, y] = [Math.log2(labels), right / count];
    weights += weight;
    meanX += weight * x;
    meanY += weight * y;
    return { x, y, weight };
  });
  meanX /= weights;
  meanY /= weights;
  let [spread, together] = [0, 0];
  for (const { x, y, weight } of rows) {
    spread += weight * (x - meanX) ** 2;
    together += weight * (x - meanX) * (y - meanY);
  }
  if (spread < 1e-9) return null;
  const perDoubling = together / spread;
  const half = Z / Math.sqrt(spread);
  return { perDoubling, low: perDoubling - half, high: perDoubling + half };
}

/** Cohen's kappa of two lists of answers to the same texts; 1 where both say one thing throughout. */
export function kappaOf(a: readonly string[], b: readonly string[]): number {
  const counts = new Map<string, [number, number]>();
  let same = 0;
  a.forEach((name, i) => {
    if (name === b[i]) same += 1;
    for (const [side, said] of [name, b[i]!].entries()) {
      const count = counts.get(said) ?? [0, 0];
      count[side]! += 1;
      counts.set(said, count);
    }
  });
  const observed = same / a.length;
  let chance = 0;
  for (const [ofA, ofB] of counts.values()) chance += (ofA / a.length) * (ofB / a.length);
  return chance === 1 ? 1 : (observed - chance) / (1 - chance);
}

function points(share: number): string {
  return `${(100 * share).toFixed(1)} points`;
}

function range({ low, high }: Slope): string {
  return `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)}`;
}
