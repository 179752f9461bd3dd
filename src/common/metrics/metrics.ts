/** The port to the metrics: who has something to count does not know the library. */
import type { CounterName, GaugeName, HistogramName, LabelsOf } from './descriptions.js';

export type SetGauge = <N extends GaugeName>(name: N, labels: LabelsOf<N>, value: number) => void;

export interface Metrics {
  add<N extends CounterName>(name: N, labels: LabelsOf<N>, by?: number): void;
  observe<N extends HistogramName>(name: N, labels: LabelsOf<N>, value: number): void;
  /** At each scrape, `read` sets the gauges of a part; what it does not set has no value then. */
  onScrape(part: string, read: (set: SetGauge) => void | Promise<void>): void;
}

export const METRICS = Symbol('Metrics');

/** For what is made outside the service: tests, rehearsals. */
export const NO_METRICS: Metrics = {
  add: () => undefined,
  observe: () => undefined,
  onScrape: () => undefined,
};

/** Seconds since a moment of `performance.now()`. */
export function secondsSince(startedAtMs: number): number {
  return (performance.now() - startedAtMs) / 1000;
}
