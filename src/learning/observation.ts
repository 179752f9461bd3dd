/**
 * What the database has to tell of the loop: pool, questions, runs, promotions. Read for a scrape, at most every half
 * minute, and by the roles that do the loop's work alone: it is the same in every process.
 */
import { Inject, Injectable } from '@nestjs/common';
import { METRICS, type Metrics, type SetGauge } from '../common/metrics/metrics.js';
import { Config } from '../config/config.js';
import type { RunStateValue } from '../storage/entities/training-run.js';
import { LoopCountsRepository, type LoopCounts } from '../storage/loop-counts.repository.js';

const KEPT_MS = 30_000;
const RUN_STATES: RunStateValue[] = ['QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED'];

@Injectable()
export class LearningObservation {
  #counts: LoopCounts | undefined;
  #countedAtMs = -Infinity;

  constructor(
    @Inject(Config) { role }: Config,
    @Inject(METRICS) metrics: Metrics,
    @Inject(LoopCountsRepository) private readonly repository: LoopCountsRepository,
  ) {
    if (role === 'all' || role === 'trainer') metrics.onScrape('learning', (set) => this.#gauges(set));
  }

  async #gauges(set: SetGauge): Promise<void> {
    if (!this.#counts || performance.now() - this.#countedAtMs > KEPT_MS) {
      this.#counts = await this.repository.read();
      this.#countedAtMs = performance.now();
    }
    const { candidates, questions, runs, promotions, waiting } = this.#counts;
    for (const { task, name, value } of candidates) set('fewloop_pool_candidates', { task, state: name }, value);
    for (const { task, value } of questions) {
      set('fewloop_review_questions', { task }, value);
      // A series that begins at 1 has no rise to alert on.
      for (const state of RUN_STATES) set('fewloop_runs', { task, state }, 0);
    }
    for (const { task, name, value } of runs) set('fewloop_runs', { task, state: name }, value);
    for (const { task, name, value } of promotions) set('fewloop_promotions', { task, decision: name }, value);
    for (const { task, value } of waiting) set('fewloop_promotion_waiting_seconds', { task }, value);
  }
}
