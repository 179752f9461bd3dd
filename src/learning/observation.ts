/**
 * What the database has to tell of the loop: pool, questions, runs, promotions, live accuracy, drift. Read for a scrape, at most every half
 * minute, and by the roles that do the loop's work alone: it is the same in every process.
 */
import { Inject, Injectable } from '@nestjs/common';
import { METRICS, type Metrics, type SetGauge } from '../common/metrics/metrics.js';
import { Config } from '../config/config.js';
import type { RunStateValue } from '../storage/entities/training-run.js';
import { LoopCountsRepository, type LoopCounts } from '../storage/loop-counts.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { AuditService, type AuditReport } from './audit.js';
import { DriftChecks, type DriftState } from './drift-checks.js';

const KEPT_MS = 30_000;
/** What reads whole predictions, and changes with answers and days. */
const KNOWN_KEPT_MS = 5 * 60_000;
const RUN_STATES: RunStateValue[] = ['QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED'];

/** How good a task's version is, and whether its texts have changed. */
interface Known {
  task: string;
  live: AuditReport | null;
  drift: DriftState | null;
}

@Injectable()
export class LearningObservation {
  #counts: LoopCounts | undefined;
  #countedAtMs = -Infinity;
  #known: Known[] = [];
  #knownAtMs = -Infinity;

  constructor(
    @Inject(Config) { role }: Config,
    @Inject(METRICS) metrics: Metrics,
    @Inject(LoopCountsRepository) private readonly repository: LoopCountsRepository,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(AuditService) private readonly audit: AuditService,
    @Inject(DriftChecks) private readonly drift: DriftChecks,
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
    for (const known of await this.#knowing()) tell(known, set);
  }

  async #knowing(): Promise<Known[]> {
    if (performance.now() - this.#knownAtMs <= KNOWN_KEPT_MS) return this.#known;
    const known: Known[] = [];
    for (const { name: task } of await this.tasks.list()) {
      known.push({ task, live: await this.audit.liveAccuracy(task), drift: await this.drift.state(task) });
    }
    this.#known = known;
    this.#knownAtMs = performance.now();
    return known;
  }
}

function tell({ task, live, drift }: Known, set: SetGauge): void {
  if (live && live.accuracy !== null) {
    const { accuracy: estimate, low, high, rows, calibrationError } = live;
    for (const [bound, value] of Object.entries({ estimate, low, high })) {
      set('fewloop_live_accuracy', { task, bound }, value);
    }
    set('fewloop_live_accuracy_rows', { task }, rows);
    if (calibrationError !== null) set('fewloop_live_calibration_error', { task }, calibrationError);
  }
  if (drift) {
    set('fewloop_drift_alarm', { task }, Number(drift.alarm));
    for (const { name, effect } of drift.statistics) set('fewloop_drift_effect', { task, statistic: name }, effect);
  }
}
