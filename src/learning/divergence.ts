/**
 * How far two samples are from each other. Pure.
 * - Population stability index: the symmetric Kullback-Leibler divergence of two histograms (Kullback & Leibler 1951), in
 *   nats, with half a row added to each cell, or a cell that one sample lacks would make it infinite.
 * - Jensen-Shannon distance: the square root of the divergence (Lin 1991; Endres & Schindelin 2003), base 2: 0 for equal
 *   shares, 1 where the two have nothing in common.
 * - Maximum mean discrepancy (Gretton et al. 2012, JMLR 13:723-773), unbiased, with a Gaussian kernel as wide as the
 *   median distance.
 */

/** Rows by cell, the cells numbered alike in both. */
export function countCells(cells: Int32Array, size: number, order: Int32Array, from: number, to: number): Float64Array {
  const counts = new Float64Array(size);
  for (let i = from; i < to; i++) counts[cells[order[i]!]!]! += 1;
  return counts;
}

export function stabilityIndex(a: Float64Array, b: Float64Array): number {
  const [n, m] = [total(a) + a.length / 2, total(b) + b.length / 2];
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    const [p, q] = [(a[i]! + 0.5) / n, (b[i]! + 0.5) / m];
    sum += (p - q) * Math.log(p / q);
  }
  return sum;
}

/** In bits, in [0, 1]: the square of the distance. Neither sample is empty. */
export function jensenShannon(a: Float64Array, b: Float64Array): number {
  const [n, m] = [total(a), total(b)];
  let sum = 0;
  for (let i = 0; i < a.length; i++) {
    const [p, q] = [a[i]! / n, b[i]! / m];
    const middle = (p + q) / 2;
    if (p > 0) sum += (p / 2) * Math.log2(p / middle);
    if (q > 0) sum += (q / 2) * Math.log2(q / middle);
  }
  return Math.max(0, sum);
}

function total(counts: Float64Array): number {
  let sum = 0;
  for (const count of counts) sum += count;
  return sum;
}

/** Cells of equal mass over both samples: their borders say nothing of which row is of which. */
export function quantileCells(values: readonly number[], size: number): Int32Array {
  const sorted = [...values].sort((a, b) => a - b);
  const borders = Array.from({ length: size - 1 }, (_, i) => sorted[Math.floor(((i + 1) * sorted.length) / size)]!);
  return Int32Array.from(values, (value) => borders.filter((border) => value >= border).length);
}

export interface Kernel {
  /** [rows, rows] */
  values: Float32Array;
  /** Sums of its rows without the diagonal. */
  rowSums: Float64Array;
  rows: number;
}

/** Gaussian, of the distances of `points`, all of one length. */
export function kernelOf(points: readonly Float32Array[]): Kernel {
  const rows = points.length;
  const values = new Float32Array(rows * rows);
  // A typed array sorts by number, several times as fast as one of numbers by a comparison.
  const distances = new Float64Array((rows * (rows - 1)) / 2);
  let pair = 0;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < i; j++) {
      const distance = squaredDistance(points[i]!, points[j]!);
      values[i * rows + j] = values[j * rows + i] = distance;
      distances[pair++] = distance;
    }
  }
  distances.sort();
  const width = distances[distances.length >> 1] || 1;
  const rowSums = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < rows; j++) {
      const value = i === j ? 0 : Math.exp(-values[i * rows + j]! / width);
      values[i * rows + j] = value;
      rowSums[i]! += value;
    }
  }
  return { values, rowSums, rows };
}

function squaredDistance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return sum;
}

export interface Discrepancy {
  /** MMD², unbiased: under the null its mean is 0. */
  squared: number;
  /** Mean similarity of two texts of one sample, summed over both samples. */
  within: number;
}

/**
 * Of the first `first` rows in `order` and the others. Only the pairs within the first sample are added up; the others
 * follow from the sums of rows.
 */
export function discrepancy({ values, rowSums, rows }: Kernel, order: Int32Array, first: number): Discrepancy {
  let [inFirst, ofFirst, ofAll] = [0, 0, 0];
  for (let i = 0; i < rows; i++) ofAll += rowSums[i]!;
  for (let i = 0; i < first; i++) {
    const row = order[i]! * rows;
    ofFirst += rowSums[order[i]!]!;
    for (let j = 0; j < i; j++) inFirst += 2 * values[row + order[j]!]!;
  }
  const across = ofFirst - inFirst;
  const second = rows - first;
  const inSecond = ofAll - inFirst - 2 * across;
  const within = inFirst / (first * (first - 1)) + inSecond / (second * (second - 1));
  return { squared: within - (2 * across) / (first * second), within };
}
