/**
 * The percentile bootstrap (Efron and Tibshirani 1993, chapter 13): 95 % of what a figure is over rows drawn with
 * replacement. The draws are the same each time.
 */
const RESAMPLES = 500;

/** A figure of the rows with these numbers, which may repeat. */
export type Statistic = (rows: ArrayLike<number>) => number;

export function bootstrap(rows: number, statistic: Statistic): { low: number; high: number } {
  const random = generator();
  const drawn = new Int32Array(rows);
  const values = Array.from({ length: RESAMPLES }, () => {
    for (let i = 0; i < rows; i++) drawn[i] = Math.floor(random() * rows);
    return statistic(drawn);
  }).sort((a, b) => a - b);
  const at = (share: number) => values[Math.round(share * (RESAMPLES - 1))]!;
  return { low: at(0.025), high: at(0.975) };
}

/** Uniform in [0, 1), the same sequence each time: a linear congruential generator (Numerical Recipes, section 7.1). */
function generator(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
