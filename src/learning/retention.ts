/**
 * What is erased by its age or number, some rows at a time and past those that somebody holds, so that nobody waits for it:
 * - the embedded stream's history (FEWLOOP_HISTORY_DAYS, FEWLOOP_HISTORY_RECORDS; Kafka's is in stream/kafka);
 * - with a task's `retention.days`, every text that nobody labelled: in the stream's history, dead letters among it, in
 *   the pool, the audit slice and questions among it, and in the data of runs that have ended. Labelled texts stay until
 *   they are forgotten (forget.ts); of Kafka's records no text is kept.
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import { rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { Clock } from '../common/clock.js';
import { Config } from '../config/config.js';
import { dataDigest, UNLABELLED_FILE } from '../launch/run-folder.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import { RunsRepository } from '../storage/runs.repository.js';
import { StreamItemsRepository } from '../storage/stream-items.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { runFolder } from './run-folders.js';

const LOOK_MS = 15 * 60_000;
const DAY_MS = 86_400_000;
const BATCH = 500;

export interface Erased {
  streamItems: number;
  candidates: number;
  /** Runs whose unlabelled texts are gone. */
  runs: number;
}

@Injectable()
export class RetentionService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly #log = new Logger(RetentionService.name);
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<unknown> = Promise.resolve();
  #ended = false;

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(Clock) private readonly clock: Clock,
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(StreamItemsRepository) private readonly items: StreamItemsRepository,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
    @Inject(RunsRepository) private readonly runs: RunsRepository,
  ) {}

  /** Trainers too: runs' texts are where they keep them. What others erase meanwhile is passed over. */
  onApplicationBootstrap(): void {
    if (!['all', 'stream', 'trainer'].includes(this.config.role)) return;
    this.#timer = setInterval(() => {
      this.#looking = this.#looking
        .then(() => this.eraseAll())
        .catch((error: unknown) => this.#log.warn(String(error)));
    }, LOOK_MS);
  }

  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.#timer);
    this.#ended = true;
    await this.#looking;
  }

  async eraseAll(): Promise<void> {
    for (const { name, definition } of await this.tasks.list()) {
      const erased = await this.erase(name, (definition as TaskDefinition).retention?.days ?? null);
      const { streamItems, candidates, runs } = erased;
      if (streamItems + candidates + runs === 0) continue;
      this.#log.log(
        `task ${name}: ${streamItems} of the stream's history, ${candidates} of the pool, ${runs} runs' texts erased`,
      );
    }
  }

  /** `days`: the task's own; null: it names none. */
  async erase(task: string, days: number | null): Promise<Erased> {
    const { historyDays, historyRecords } = this.config;
    const before = (age: number) => new Date(this.clock.now().getTime() - age * DAY_MS);
    const history = Math.min(days ?? Infinity, historyDays || Infinity);
    const limits = {
      before: Number.isFinite(history) ? before(history) : null,
      failedBefore: days === null ? null : before(days),
      keep: historyRecords || null,
    };
    const streamItems = await this.#inBatches(() => this.items.prune(task, limits, BATCH));
    if (days === null) return { streamItems, candidates: 0, runs: 0 };
    const candidates = await this.#inBatches(() => this.candidates.eraseUnlabelled(task, before(days), BATCH));
    return { streamItems, candidates, runs: await this.#eraseFromRuns(task, before(days)) };
  }

  async #inBatches(erase: () => Promise<number>): Promise<number> {
    let total = 0;
    while (!this.#ended) {
      const erased = await erase();
      total += erased;
      if (erased < BATCH) break;
    }
    return total;
  }

  /**
   * With the file, not its lines alone: a run without it says that it cannot be repeated, and the gate that it does not
   * know what was trained on. Split groups would tell it that, but a short text can be guessed from its digest. A file
   * that is empty and was not so when the run began had its lines erased alone, by an earlier release.
   */
  async #eraseFromRuns(task: string, before: Date): Promise<number> {
    let erased = 0;
    for (const run of await this.runs.endedBefore(task, before)) {
      const folder = path.join(this.config.dataDir, runFolder(task, run.id));
      const file = path.join(folder, UNLABELLED_FILE);
      const known = await stat(file).catch(() => null);
      if (!known) continue;
      if (known.size === 0 && (await dataDigest(folder).catch(() => null)) === run.dataDigest) continue;
      // Another process of the same volume may have removed it meanwhile.
      await rm(file, { force: true });
      erased += 1;
    }
    return erased;
  }
}
