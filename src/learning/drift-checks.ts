/**
 * A task's traffic, compared once a day with that after the promotion of its active version (drift.ts). Both windows are
 * of the reservoir, arrived after the promotion: texts that the version was not trained on, so that it is as sure of the
 * ones as of the others. It reads them all anew, in the background. One process does it, whichever is first.
 * Imports of other modules: inference, registry, storage, task.
 */
import { Inject, Injectable, Logger } from '@nestjs/common';
import { Clock } from '../common/clock.js';
import { InferenceEngine } from '../inference/engine.js';
import { ActivationService } from '../registry/activation.js';
import { DriftRepository } from '../storage/drift.repository.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import type { DriftCheckRow } from '../storage/entities/drift-check.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { Transactions } from '../storage/transactions.js';
import { VersionsRepository } from '../storage/versions.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { itemOf } from './data-set.js';
import { CHECKS_A_YEAR, driftOf, levelOf, windowsOf, type DriftRow, type DriftStatistic } from './drift.js';

export interface DriftState {
  version: number;
  checkedAt: Date;
  reference: number;
  present: number;
  level: number;
  statistics: DriftStatistic[];
  alarm: boolean;
}

const CHECK_EVERY_MS = (365 * 86_400_000) / CHECKS_A_YEAR;
/** After a look that found too few texts, or failed. */
const LOOK_AGAIN_MS = 10 * 60_000;
const TEXTS_AT_ONCE = 32;

@Injectable()
export class DriftChecks {
  readonly #log = new Logger(DriftChecks.name);
  /** Task → when it is looked at again. */
  readonly #next = new Map<string, number>();

  constructor(
    @Inject(Clock) private readonly clock: Clock,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(VersionsRepository) private readonly versions: VersionsRepository,
    @Inject(DriftRepository) private readonly checks: DriftRepository,
    @Inject(Transactions) private readonly transactions: Transactions,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(InferenceEngine) private readonly engine: InferenceEngine,
  ) {}

  /** The last check; null where there was none, or another version is active since. */
  async state(taskName: string): Promise<DriftState | null> {
    const [task, last] = await Promise.all([this.tasks.find(taskName), this.checks.last(taskName)]);
    if (!last || last.version !== task?.activeVersion) return null;
    const { version, checkedAt, reference, present, level, alarm } = last;
    const statistics = last.statistics as DriftStatistic[];
    return { version, checkedAt, reference, present, level, alarm, statistics };
  }

  /** Makes the check that is due, if one is. */
  async check(task: string): Promise<void> {
    const now = this.clock.now().getTime();
    if (now < (this.#next.get(task) ?? -Infinity)) return;
    this.#next.set(task, now + LOOK_AGAIN_MS);
    try {
      await this.#checkIfDue(task);
    } catch (error) {
      this.#log.warn(`task ${task}: drift was not looked for: ${String(error)}`);
    }
  }

  /** The alarm that no run has answered yet. */
  async unanswered(task: string): Promise<DriftCheckRow | null> {
    const last = await this.checks.last(task);
    return last?.alarm && !last.answered ? last : null;
  }

  markAnswered(check: DriftCheckRow): Promise<void> {
    return this.checks.markAnswered(check);
  }

  #checkIfDue(taskName: string): Promise<void> {
    return this.transactions.run(async (tx) => {
      if (!(await this.checks.tryLock(taskName, tx))) return;
      const task = await this.tasks.find(taskName, tx);
      const { drift } = (task?.definition as TaskDefinition | undefined)?.learning.trigger ?? {};
      if (!task || !drift || task.activeVersion === null) return;
      const version = task.activeVersion;
      const checkedAt = this.clock.now();
      const last = await this.checks.last(taskName, tx);
      if (last && checkedAt.getTime() - last.checkedAt.getTime() < CHECK_EVERY_MS) return;
      const since = (await this.versions.find(taskName, version, tx))?.activatedAt;
      const windows = since && windowsOf(await this.checks.arrivedSince(taskName, since));
      if (!windows) return;
      const reference = await this.#read(taskName, version, windows.reference);
      const present = await this.#read(taskName, version, windows.present);
      if (reference.length < 2 || present.length < 2) return;
      const statistics = driftOf(reference, present, drift, checkedAt.getTime());
      const alarm = statistics.some((statistic) => statistic.alarm);
      const counts = { reference: reference.length, present: present.length, level: levelOf(drift) };
      await this.checks.insert({ task: taskName, checkedAt, version, ...counts, statistics, alarm }, tx);
      if (alarm) this.#log.warn(`task ${taskName}: ${describeDrift(statistics, levelOf(drift))}`);
    });
  }

  /** Those that the version can score. Throws where it cannot be opened, or the queue is full. */
  async #read(task: string, version: number, rows: CandidateRow[]): Promise<DriftRow[]> {
    const { model, release } = await this.activation.openVersion(task, version);
    try {
      const read: DriftRow[] = [];
      for (let start = 0; start < rows.length; start += TEXTS_AT_ONCE) {
        const part = rows.slice(start, start + TEXTS_AT_ONCE);
        const outcomes = await this.engine.classify(model, { items: part.map(itemOf), priority: 'background' });
        outcomes.forEach((outcome, i) => {
          if (!outcome.ok) return;
          const { labels, confidence } = outcome.prediction;
          // A choice is a label of one text alone: its place is what can be compared.
          const places = part[i]!.choices;
          const label = places ? String(places.indexOf(labels[0] ?? '')) : labels.join('\n');
          read.push({ label, confidence, embedding: outcome.embedding });
        });
      }
      return read;
    } finally {
      release();
    }
  }
}

/** Of the statistics that alarm, what they say. */
export function describeDrift(statistics: readonly DriftStatistic[], level: number): string {
  const said = statistics
    .filter(({ alarm }) => alarm)
    .map(({ name, effect, p }) => `${name}: effect ${effect.toFixed(3)}, p ${p.toPrecision(2)}`);
  return `drift of ${said.join('; ')} (level ${level.toPrecision(2)} a test)`;
}
