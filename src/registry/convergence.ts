/**
 * The desired state is in the database (each task's active version, and its newest revision's routing); this process
 * converges to it: at start, when told (NOTIFY), and by polling, because a notification can be lost with its connection.
 * It reports what it serves.
 * A version that cannot be opened here leaves the one before in place, is reported, and is tried again, ever less often.
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import { FewloopError } from '../common/errors.js';
import { METRICS, NO_METRICS, type Metrics } from '../common/metrics/metrics.js';
import { Notifications } from '../storage/notifications.js';
import { ReplicasRepository } from '../storage/replicas.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import { ActivationService } from './activation.js';

const POLL_MS = 5_000;
const REPORT_MS = 10_000;
/** A replica that has not reported for so long is gone. */
const SILENT_MS = 60_000;
const LONGEST_RETRY_MS = 300_000;
const MESSAGE_UNITS = 500;

interface Failure {
  version: number;
  retryAt: number;
  delayMs: number;
  message: string;
}

@Injectable()
export class ConvergenceService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #log = new Logger(ConvergenceService.name);
  readonly #replica = `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`;
  readonly #failures = new Map<string, Failure>();
  readonly #stop = new AbortController();
  #first: Promise<void> | undefined;
  #tried = false;
  #loops: Promise<unknown> = Promise.resolve();

  constructor(
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(ReplicasRepository) private readonly replicas: ReplicasRepository,
    @Inject(Notifications) private readonly notifications: Notifications,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(METRICS) private readonly metrics: Metrics = NO_METRICS,
  ) {}

  onApplicationBootstrap(): void {
    this.notifications.on('fewloop_desired', (task) => {
      this.#failures.delete(task);
      void this.#quietly(() => this.converge(task));
    });
    this.#first = this.#convergeAll().then(() => void (this.#tried = true));
    this.#loops = Promise.all([
      this.#first.then(() => this.#every(POLL_MS, () => this.#convergeAll())),
      this.#every(REPORT_MS, () => this.#report()),
    ]);
  }

  /** Before models are closed, so that none is opened afterwards. */
  async beforeApplicationShutdown(): Promise<void> {
    this.#stop.abort();
    await this.#loops;
    await this.#quietly(() => this.replicas.remove(this.#replica));
  }

  /** Resolves when every active version has been tried once since the start: what can serve, serves. */
  ready(): Promise<void> {
    return this.#first ?? Promise.resolve();
  }

  /** Whether every active version has been tried once, and the tasks whose version cannot be served here for now. */
  state(): { tried: boolean; failing: string[] } {
    return { tried: this.#tried, failing: [...this.#failures.keys()].sort() };
  }

  /** Serves the task's active version here and now (`mayRest`: or once it is asked); throws what keeps it from that. */
  async converge(task: string, options: { mayRest?: boolean } = {}): Promise<void> {
    const row = await this.tasks.find(task);
    if (!row) throw new FewloopError('TASK_NOT_FOUND', `there is no task ${task}`);
    if (row.activeVersion === null) return;
    this.activation.follow(row);
    try {
      await this.activation.activate(task, row.activeVersion, options);
      if (this.#failures.delete(task)) await this.#quietly(() => this.#report());
    } catch (error) {
      this.metrics.add('fewloop_activation_failures_total', { task });
      const before = this.#failures.get(task);
      const delayMs = before?.version === row.activeVersion ? Math.min(before.delayMs * 2, LONGEST_RETRY_MS) : POLL_MS;
      const message = (error as Error).message.slice(0, MESSAGE_UNITS).toWellFormed();
      this.#failures.set(task, { version: row.activeVersion, retryAt: performance.now() + delayMs, delayMs, message });
      await this.#quietly(() => this.#report());
      throw error;
    }
  }

  /** To be called after a transaction that changed the active version or the task: serves so here, tells other replicas. */
  async announce(task: string): Promise<void> {
    await this.notifications.notify('fewloop_desired', task);
    await this.converge(task);
  }

  async #convergeAll(): Promise<void> {
    await this.#quietly(async () => {
      const served = this.activation.served();
      for (const row of await this.tasks.list()) {
        if (this.#stop.signal.aborted) return;
        this.activation.follow(row);
        const { name, activeVersion } = row;
        if (activeVersion === null || served[name] === activeVersion) {
          // Whoever asked for it may have opened it since.
          this.#failures.delete(name);
          continue;
        }
        const failure = this.#failures.get(name);
        if (failure?.version === activeVersion && performance.now() < failure.retryAt) continue;
        // Nobody asked for it yet: it takes no other task's memory.
        await this.#quietly(() => this.converge(name, { mayRest: true }));
      }
    });
  }

  async #report(): Promise<void> {
    const failures = [...this.#failures].map(([task, { version, message }]) => [task, { version, message }] as const);
    await this.replicas.report(this.#replica, this.activation.served(), Object.fromEntries(failures));
    await this.replicas.removeSilentSince(new Date(Date.now() - SILENT_MS));
  }

  async #every(intervalMs: number, action: () => Promise<void>): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#quietly(action);
      await wait(intervalMs, undefined, { signal: this.#stop.signal, ref: false }).catch(() => undefined);
    }
  }

  /** What nobody waits for is logged: the next turn tries again. */
  async #quietly(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#log.error(error);
    }
  }
}
