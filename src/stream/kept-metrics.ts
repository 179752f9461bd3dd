/** Counts what became of the stream's records, once that is kept. */
import type { Metrics } from '../common/metrics/metrics.js';
import { countPredictions } from '../inference/prediction-metrics.js';
import type { Prediction } from '../inference/types.js';

/** A record that was scored, or that is a dead letter. */
export interface Kept {
  /** Null where it is of none that is known. */
  task: string | null;
  prediction?: Prediction;
  /** Of the error. */
  code?: string;
}

export function countKept(metrics: Metrics, kept: Kept[]): void {
  metrics.observe('fewloop_stream_batch_records', {}, kept.length);
  for (const [name, own] of Map.groupBy(kept, ({ task }) => task ?? '')) {
    const predictions = own.flatMap(({ prediction }) => (prediction ? [prediction] : []));
    if (predictions.length > 0) {
      metrics.add('fewloop_stream_records_total', { task: name, outcome: 'scored' }, predictions.length);
      countPredictions(metrics, name, 'stream', predictions);
    }
    const codes = own.flatMap(({ code }) => (code === undefined ? [] : [code]));
    if (codes.length === 0) continue;
    metrics.add('fewloop_stream_records_total', { task: name, outcome: 'dead' }, codes.length);
    for (const code of codes) metrics.add('fewloop_stream_dead_letters_total', { task: name, code });
  }
}
