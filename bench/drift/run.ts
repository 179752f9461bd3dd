/**
 * How often the tests of drift alarm on stationary traffic, and what they notice: tables of docs/results/drift.md.
 *   node bench/drift/run.ts YEARS LABELS fresh|sliding|shifted
 * Traffic is made (test/fixtures/traffic.ts). `fresh`: each check has windows of its own. `sliding`: as in the service,
 * one window after each promotion, and one that moves on by a part a day; a promotion every 60 days. `shifted`: a new
 * topic in the present window.
 */
import { registerHooks } from 'node:module';
import type { DriftRow } from '../../src/learning/drift.ts';

// The sources name each other as they are after the build.
registerHooks({
  resolve: (specifier, context, next) => next(specifier.replace(/^(\..*)\.js$/u, '$1.ts'), context),
});

const { CHECKS_A_YEAR, driftOf, WINDOW_TEXTS } = await import('../../src/learning/drift.js');
const { generatorOf } = await import('../../src/learning/permutation.js');
const { draw } = await import('../../test/fixtures/traffic.js');

const SHIFTS = [0.05, 0.1, 0.2, 0.4];
const POWER_CHECKS = 50;
const DAYS_A_VERSION = 60;
/** Texts that enter the present window, and leave it, in a day. */
const TEXTS_A_DAY = 50;
/** The usual rule of thumb for "some change". */
const FIXED_THRESHOLD = 0.1;
/** Often enough to be measured. */
const ALLOWED = 12;

const [, , givenYears = '1', givenLabels = '2,10,110', traffic = 'fresh'] = process.argv;
const years = Number(givenYears);
const LABELS = givenLabels.split(',').map(Number);

/** Alarms of `checks` checks, `windows` giving the two of each. */
function alarmsOf(checks: number, minEffect: number, windows: (check: number) => [DriftRow[], DriftRow[]]) {
  const counts = { labels: 0, confidence: 0, embeddings: 0, any: 0, fixed: 0 };
  const byVersion: number[] = [];
  for (let check = 0; check < checks; check++) {
    const [before, now] = windows(check);
    const statistics = driftOf(before, now, { falseAlarmsPerYear: ALLOWED, minEffect }, check);
    for (const { name, alarm } of statistics) counts[name] += Number(alarm);
    const any = Number(statistics.some(({ alarm }) => alarm));
    counts.any += any;
    const version = Math.floor(check / DAYS_A_VERSION);
    byVersion[version] = (byVersion[version] ?? 0) + any;
    counts.fixed += Number(statistics[0]!.stabilityIndex! > FIXED_THRESHOLD);
  }
  return { ...counts, byVersion };
}

/** Half the 95 % interval of the alarms a year: alarms of one version go together, those of two do not. */
function halfInterval(byVersion: number[]): number {
  const mean = byVersion.reduce((a, b) => a + b, 0) / byVersion.length;
  const variance = byVersion.reduce((sum, count) => sum + (count - mean) ** 2, 0) / (byVersion.length - 1);
  return (1.96 * Math.sqrt(variance / byVersion.length) * CHECKS_A_YEAR) / DAYS_A_VERSION;
}

function sliding(labels: number): (check: number) => [DriftRow[], DriftRow[]] {
  const random = generatorOf(labels);
  const texts = (count: number) => draw({ labels, shifted: 0 }, count, random);
  let [before, now]: [DriftRow[], DriftRow[]] = [[], []];
  return (check) => {
    if (check % DAYS_A_VERSION === 0) [before, now] = [texts(WINDOW_TEXTS), texts(WINDOW_TEXTS)];
    else now = [...now.slice(TEXTS_A_DAY), ...texts(TEXTS_A_DAY)];
    return [before, now];
  };
}

function shiftedBy(labels: number, shifted: number): () => [DriftRow[], DriftRow[]] {
  const random = generatorOf(1000 * labels + Math.round(100 * shifted));
  return () => [draw({ labels, shifted: 0 }, WINDOW_TEXTS, random), draw({ labels, shifted }, WINDOW_TEXTS, random)];
}

function fresh(labels: number): () => [DriftRow[], DriftRow[]] {
  const random = generatorOf(labels);
  const texts = () => draw({ labels, shifted: 0 }, WINDOW_TEXTS, random);
  return () => [texts(), texts()];
}

function printStationary(): void {
  console.log(`Stationary traffic, ${traffic} windows, ${years} years of a check a day, ${ALLOWED} allowed: alarms a year.\n`);
  console.log(`| labels | labels' | confidence's | embeddings' | checks with any | index over ${FIXED_THRESHOLD} |`);
  console.log('|---|---|---|---|---|---|');
  for (const labels of LABELS) {
    const windows = traffic === 'fresh' ? fresh(labels) : sliding(labels);
    const counts = alarmsOf(years * CHECKS_A_YEAR, 0, windows);
    const aYear = (count: number) => (count / years).toFixed(1);
    const any = `${aYear(counts.any)} ± ${halfInterval(counts.byVersion).toFixed(1)}`;
    const figures = [aYear(counts.labels), aYear(counts.confidence), aYear(counts.embeddings), any, aYear(counts.fixed)];
    console.log(`| ${labels} | ${figures.join(' | ')} |`);
  }
}

function printShifted(): void {
  console.log(`A new topic, ${ALLOWED} false alarms a year, least effect 0.1, ${POWER_CHECKS} checks each: share that alarms.\n`);
  console.log("| labels | share of the topic | labels' | confidence's | embeddings' | any |");
  console.log('|---|---|---|---|---|---|');
  for (const labels of LABELS) {
    for (const shifted of SHIFTS) {
      const counts = alarmsOf(POWER_CHECKS, 0.1, shiftedBy(labels, shifted));
      const figures = [counts.labels, counts.confidence, counts.embeddings, counts.any];
      const shares = figures.map((count) => (count / POWER_CHECKS).toFixed(2));
      console.log(`| ${labels} | ${shifted} | ${shares.join(' | ')} |`);
    }
  }
}

if (traffic === 'shifted') printShifted();
else printStationary();
