/** Metrics, health and the clock for the whole application: what any part has to tell goes through their ports. */
import { Global, Inject, Module } from '@nestjs/common';
import { Clock } from './clock.js';
import { Health } from './health.js';
import { METRICS, type Metrics } from './metrics/metrics.js';
import { PrometheusMetrics } from './metrics/prometheus.js';

@Global()
@Module({
  providers: [Clock, Health, PrometheusMetrics, { provide: METRICS, useExisting: PrometheusMetrics }],
  exports: [Clock, Health, PrometheusMetrics, METRICS],
})
export class ObservationModule {
  constructor(@Inject(METRICS) metrics: Metrics, @Inject(Health) health: Health) {
    metrics.onScrape('health', async (set) => {
      for (const [part, { ok }] of Object.entries(await health.report())) set('fewloop_ready', { part }, ok ? 1 : 0);
    });
  }
}
