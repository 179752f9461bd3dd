/**
 * Watches a version after its promotion, in every process that serves: by what it answered here, beside what the version
 * before did, and by audit answers (guard-rules.ts). It goes back by itself, once, and says why; to go forth again is for
 * people. A process that was started after the swap knows no version before, and watches failures and audit answers.
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { Clock } from '../common/clock.js';
import { FewloopError } from '../common/errors.js';
import { METRICS, type Metrics } from '../common/metrics/metrics.js';
import { Config } from '../config/config.js';
import { ServedWindows, type ServedWindow } from '../inference/served-windows.js';
import type { TaskRow } from '../storage/entities/task.js';
import { LedgerRepository } from '../storage/ledger.repository.js';
import { PromotionsRepository } from '../storage/promotions.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { AuditService } from './audit.js';
import { namedNow } from './data-set.js';
import type { TrafficFigures } from './gate.js';
import { reasonsToGoBack } from './guard-rules.js';
import { PromotionService, SERVICE } from './promotion.js';

const POLL_MS = 15_000;
const MINUTES = 60;

@Injectable()
export class GuardService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #log = new Logger(GuardService.name);
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(PromotionsRepository) private readonly promotionRows: PromotionsRepository,
    @Inject(LedgerRepository) private readonly ledger: LedgerRepository,
    @Inject(PromotionService) private readonly promotions: PromotionService,
    @Inject(AuditService) private readonly audit: AuditService,
    @Inject(ServedWindows) private readonly windows: ServedWindows,
    @Inject(Clock) private readonly clock: Clock,
    @Inject(METRICS) private readonly metrics: Metrics,
  ) {}

  onApplicationBootstrap(): void {
    if (this.config.role === 'trainer') return;
    this.#timer = setInterval(() => {
      this.#looking = this.#looking
        .then(() => this.lookAtAll())
        .catch((error: unknown) => this.#log.warn(String(error)));
    }, POLL_MS);
  }

  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
  }

  async lookAtAll(): Promise<void> {
    for (const { name } of await this.tasks.list()) {
      // What is wrong with one task holds no other up.
      await this.look(name).catch((error: unknown) => this.#log.warn(`task ${name}: ${String(error)}`));
    }
  }

  /** Why the task's version went back just now; none: it stays, or is not watched. */
  async look(name: string): Promise<string[]> {
    const task = await this.tasks.find(name);
    const since = task && (await this.#watchedSince(task));
    if (!task || !since) return [];
    // Prometheus sees a rise only over a value that was there before it.
    this.metrics.add('fewloop_guard_rollbacks_total', { task: name }, 0);
    const [version, before] = [task.activeVersion!, task.previousVersion!];
    const definition = task.definition as TaskDefinition;
    const promotion = await this.promotionRows.ofVersion(name, version);
    const { traffic = null } = (promotion?.report ?? {}) as { traffic?: TrafficFigures | null };
    const reasons = await reasonsToGoBack({
      before: renamed(this.windows.of(name, before, 0), definition),
      now: renamed(this.windows.of(name, version, since.getTime()), definition),
      expectedShift: traffic && traffic.labelShift,
      audit: {
        before: await this.audit.accuracyOf(name, before, definition),
        now: await this.audit.accuracyOf(name, version, definition),
      },
    });
    if (reasons.length > 0) await this.#goBack(name, version, reasons);
    return reasons;
  }

  /** When the version that is active was promoted; null where it was not, or that is too long ago. */
  async #watchedSince({ name, activeVersion, previousVersion, definition }: TaskRow): Promise<Date | null> {
    const { guardMinutes = MINUTES } = (definition as TaskDefinition).learning.promotion;
    if (activeVersion === null || previousVersion === null || guardMinutes === 0) return null;
    const swap = await this.ledger.lastSwap(name, activeVersion);
    if (!swap || (swap.kind !== 'promotion-approved' && swap.kind !== 'canary-completed')) return null;
    if ((swap.body as { version: number }).version !== activeVersion) return null;
    return this.clock.now().getTime() - swap.at.getTime() < guardMinutes * 60_000 ? swap.at : null;
  }

  async #goBack(task: string, version: number, reasons: string[]): Promise<void> {
    const reason = `the guard: ${reasons.join('; ')}`;
    try {
      await this.promotions.rollback(task, reason, SERVICE, version);
    } catch (error) {
      // Another replica has seen the same.
      if (error instanceof FewloopError && error.code === 'CONFLICT') return;
      throw error;
    }
    this.metrics.add('fewloop_guard_rollbacks_total', { task });
    this.#log.error(`version ${version} of ${task} went back: ${reason}`);
  }
}

/** By the task's present names: each of two versions may have been made before a renaming that the other knows. */
export function renamed(window: ServedWindow, definition: TaskDefinition): ServedWindow {
  const labels = new Map<string, number>();
  for (const [joined, count] of window.labels) {
    const now = namedNow(definition, joined.split('\n')).toSorted().join('\n');
    labels.set(now, (labels.get(now) ?? 0) + count);
  }
  return { ...window, labels };
}
