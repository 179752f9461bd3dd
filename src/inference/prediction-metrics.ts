/** Counts what was told or kept: how predictions are routed, and how often their members disagree. */
import type { Metrics } from '../common/metrics/metrics.js';
import type { Prediction } from './types.js';

/** `predictions`: of one task. */
export function countPredictions(
  metrics: Metrics,
  task: string,
  source: 'api' | 'stream',
  predictions: readonly Prediction[],
): void {
  for (const [version, own] of Map.groupBy(predictions, ({ modelVersion }) => String(modelVersion))) {
    for (const [route, { length }] of Map.groupBy(own, (prediction) => prediction.route)) {
      metrics.add('fewloop_predictions_total', { task, version, source, route }, length);
    }
    const contested = own.filter(({ disagreement }) => (disagreement?.dissenting ?? 0) > 0).length;
    metrics.add('fewloop_contested_predictions_total', { task, version, source }, contested);
  }
}
