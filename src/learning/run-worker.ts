/**
 * Does training runs, one at a time in this process. Each step can be repeated after a crash at any point: the run's
 * folder holds its data, fixed at the first attempt; a bundle becomes a version once; a version has one promotion.
 *
 *   QUEUED ──▶ RUNNING: data → trainer → version → gate ──▶ SUCCEEDED, with a promotion that waits for its decision
 *     │           ├── the trainer said why not, or died three times ──▶ FAILED
 *     └──────────▶├── asked to ──▶ CANCELLED
 *                 └── the service ended: the job goes to whoever asks next, and resumes in the same folder
 */
import {
  Inject,
  Injectable,
  Logger,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
} from '@nestjs/common';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';
import { LAUNCHER, type Launcher, type RunningTrainer } from '../launch/launcher.js';
import type { RunProgress, RunResult } from '../launch/run-folder.js';
import type { TrainingRunRow } from '../storage/entities/training-run.js';
import { RunsRepository, type RunPatch } from '../storage/runs.repository.js';
import { Transactions } from '../storage/transactions.js';
import { LearningEvents } from './events.js';
import { GateService } from './gate.js';
import { JobQueue } from './job-queue.js';
import { LabelIssues } from './label-issues.js';
import { Outbox } from './outbox.js';
import { PromotionService } from './promotion.js';
import { ReproductionService } from './reproduction.js';
import { RunData } from './run-data.js';
import { runFolder } from './run-folders.js';
import { RunVersions } from './run-versions.js';
import { TRAINING_QUEUE, type TrainingJob } from './runs.js';
import { VersionAgreement } from './version-agreement.js';

/** A run whose service ends that often is not tried again. */
const SERVICE_RETRIES = 10;
const GIVEN_UP = `given up after ${SERVICE_RETRIES + 1} attempts that the service did not bring to an end; see its log`;
const TRAINER_RESTARTS = 2;
/** A trainer reports every stage, many steps within, and that it is at work while it asks models or exports one. */
const SILENT_TRAINER_MS = 20 * 60_000;
const WATCH_MS = 1000;
const STORE_RETRY_MS = 5000;
const SWEEP_MS = 5000;
/** Events of one run, at most five a second. */
const EVENT_INTERVAL_MS = 200;

@Injectable()
export class RunWorker implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly log = new Logger(RunWorker.name);
  private readonly stopping = new AbortController();
  private sweeper: NodeJS.Timeout | undefined;
  private sweeping: Promise<void> = Promise.resolve();
  private trainers = 0;

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(LAUNCHER) private readonly launcher: Launcher,
    @Inject(JobQueue) private readonly queue: JobQueue,
    @Inject(RunsRepository) private readonly runs: RunsRepository,
    @Inject(RunData) private readonly data: RunData,
    @Inject(RunVersions) private readonly versions: RunVersions,
    @Inject(GateService) private readonly gate: GateService,
    @Inject(PromotionService) private readonly promotions: PromotionService,
    @Inject(ReproductionService) private readonly reproductions: ReproductionService,
    @Inject(VersionAgreement) private readonly agreement: VersionAgreement,
    @Inject(LabelIssues) private readonly labelIssues: LabelIssues,
    @Inject(LearningEvents) private readonly events: LearningEvents,
    @Inject(Outbox) private readonly outbox: Outbox,
    @Inject(Transactions) private readonly transactions: Transactions,
  ) {}

  /** Whether a trainer has this machine's cores. */
  get training(): boolean {
    return this.trainers > 0;
  }

  async onApplicationBootstrap(): Promise<void> {
    await this.queue.define(TRAINING_QUEUE, { retries: SERVICE_RETRIES });
    if (!['all', 'trainer'].includes(this.config.role)) return;
    await this.queue.work(TRAINING_QUEUE, (job, claim) => this.perform((job as TrainingJob).runId, claim));
    this.sweeper = setInterval(() => {
      this.sweeping = this.sweeping.then(() => this.sweep()).catch((error: unknown) => this.log.warn(String(error)));
    }, SWEEP_MS);
  }

  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.sweeper);
    this.stopping.abort();
    await this.sweeping;
    await this.queue.stop();
  }

  /** Runs without a job: the process that started them ended before it sent one, or the queue gave it up. */
  private async sweep(): Promise<void> {
    for (const run of await this.runs.silentSince(new Date(Date.now() - 2 * SWEEP_MS))) {
      if (this.stopping.signal.aborted) return;
      const job = await this.queue.stateOf(TRAINING_QUEUE, run.id);
      if (job === 'unknown') await this.queue.send(TRAINING_QUEUE, run.id, { runId: run.id } satisfies TrainingJob);
      if (job !== 'over') continue;
      await this.launcher.end(this.folderOf(run));
      await this.finish(run.id, { state: 'FAILED', error: GIVEN_UP });
    }
  }

  private async perform(runId: string, claim: AbortSignal): Promise<void> {
    const run = await this.runs.find(runId);
    if (!run || !['QUEUED', 'RUNNING'].includes(run.state)) return;
    if (this.stopping.signal.aborted) throw new Error('the service is stopping');
    const now = new Date();
    await this.runs.updateOpen(runId, {
      state: 'RUNNING',
      startedAt: run.startedAt ?? now,
      heartbeatAt: now,
      error: null,
    });
    const watch = new Watch(this.runs, run, AbortSignal.any([claim, this.stopping.signal]));
    try {
      const tell = throttled((progress) => this.progressed(runId, progress));
      let estimate: number | undefined;
      const report = (progress: RunProgress) => {
        watch.heard();
        // Said once, in a line that the next one may overtake.
        estimate = estimateOf(progress) ?? estimate;
        tell({ ...progress, metrics: { ...progress.metrics, estimateSeconds: estimate } });
      };
      const version = await this.steps(run, watch, report);
      await this.labelIssues
        .ask(run.task, version, this.folderOf(run))
        .catch((error: unknown) => this.log.warn(String(error)));
      await this.finish(runId, { state: 'SUCCEEDED', progress: 1, stage: null, producedVersion: version });
      await this.data.prune(run.task).catch((error: unknown) => this.log.warn(String(error)));
    } catch (error) {
      await this.failed(run, watch, error);
    } finally {
      watch.close();
    }
  }

  /** Resolves to the version that was made. */
  private async steps(run: TrainingRunRow, watch: Watch, report: (progress: RunProgress) => void): Promise<number> {
    watch.check();
    const known = await this.versions.ofRun(run);
    let version = known?.version;
    if (version === undefined) {
      const folder = this.folderOf(run);
      report(stage('preparing', 0));
      const dataDigest = await this.data.prepare(run, folder);
      await this.runs.updateOpen(run.id, { folder: runFolder(run.task, run.id), dataDigest });
      await this.train(folder, watch, report);
      watch.check();
      await this.keep(run, folder, watch, report);
      report(stage('registering', 1));
      version = (await this.versions.register(run, folder)).version;
    }
    watch.check();
    if (run.reproduces !== null) {
      await this.runs.updateOpen(run.id, { reproduction: await this.reproductions.compare(run, version) });
      return version;
    }
    report(stage('comparing with the champion', 1));
    const comparison = await this.gate.compare(run.task, version);
    watch.check();
    await this.promotions.request(run.task, version, comparison);
    report(stage('comparing with the run before', 1));
    // Advice for people who label: a run does not fail for it.
    await this.agreement.measure(run.task, version).catch((error: unknown) => this.log.warn(String(error)));
    return version;
  }

  /** A bundle store that is away for a while must not cost a training: it is waited for. */
  private async keep(
    run: TrainingRunRow,
    folder: string,
    watch: Watch,
    report: (progress: RunProgress) => void,
  ): Promise<void> {
    report(stage('storing the bundle', 1));
    for (;;) {
      try {
        return await this.versions.keep(folder);
      } catch (error) {
        if (error instanceof FewloopError) throw error;
        this.log.warn(`run ${run.id}: its bundle cannot be stored yet: ${(error as Error).message}`);
      }
      report(stage('waiting for the bundle store', 1));
      await watch.pause(STORE_RETRY_MS);
      watch.check();
    }
  }

  private async train(folder: string, watch: Watch, report: (progress: RunProgress) => void): Promise<void> {
    if (await this.versions.isTrained(folder)) return;
    for (let restarts = 0; ; restarts += 1) {
      this.trainers += 1;
      const result = await watch.over(this.launcher.start(folder, report)).finally(() => (this.trainers -= 1));
      watch.check();
      if (result.ok) return;
      const died = result.code === 'CRASHED' || result.code === 'STOPPED'; // STOPPED by somebody else's signal
      if (!died || restarts === TRAINER_RESTARTS) throw new TrainerFailure(result);
      this.log.warn(`the trainer of ${folder} died and is started again: ${result.message}`);
      report(stage('starting the trainer again', 0));
    }
  }

  /** A reason that another try would meet again ends the run; anything else gives the job back. */
  private async failed(run: TrainingRunRow, watch: Watch, error: unknown): Promise<void> {
    if (error instanceof Cancelled) {
      await this.launcher.end(this.folderOf(run)); // of a process that is gone: this one's own has ended
      await this.finish(run.id, { state: 'CANCELLED', stage: null });
    } else if (error instanceof TrainerFailure || (error instanceof FewloopError && !watch.interrupted)) {
      this.log.warn(`run ${run.id} of ${run.task}: ${error.message}`);
      await this.finish(run.id, { state: 'FAILED', error: error.message });
    } else {
      if (!watch.interrupted) this.log.error(error);
      throw error;
    }
  }

  private folderOf({ task, id }: TrainingRunRow): string {
    return path.join(this.config.dataDir, runFolder(task, id));
  }

  private async progressed(runId: string, line: RunProgress): Promise<void> {
    const { stage: name, progress } = line;
    const estimateSeconds = estimateOf(line);
    const patch = { stage: name, progress, ...(estimateSeconds === undefined ? {} : { estimateSeconds }) };
    if (await this.runs.updateOpen(runId, patch)) await this.tell(runId);
  }

  private async finish(runId: string, patch: RunPatch): Promise<void> {
    const changed = await this.transactions.run(async (tx) => {
      if (!(await this.runs.updateOpen(runId, { ...patch, finishedAt: new Date() }, tx))) return false;
      const run = await this.runs.find(runId, tx);
      const { task = '', state, trigger, producedVersion, error } = run ?? {};
      await this.outbox.add('run.finished', task, { run: runId, state, trigger, version: producedVersion, error }, tx);
      return true;
    });
    if (changed) await this.tell(runId);
  }

  private async tell(runId: string): Promise<void> {
    const run = await this.runs.find(runId);
    if (run) this.events.runChanged(run);
  }
}

class Cancelled extends Error {}

class TrainerFailure extends Error {
  constructor(result: Extract<RunResult, { ok: false }>) {
    super(`${result.code}: ${result.message}`);
  }
}

/** While a run is worked on: says that it lives, and notices that it is to stop. */
class Watch {
  private cancelled: boolean;
  private trainer: RunningTrainer | null = null;
  private heardAt = Date.now();
  private readonly timer: NodeJS.Timeout;

  constructor(
    private readonly runs: RunsRepository,
    private readonly run: TrainingRunRow,
    private readonly signal: AbortSignal,
  ) {
    this.cancelled = run.cancelRequested;
    this.timer = setInterval(() => void this.look(), WATCH_MS);
    signal.addEventListener('abort', this.releaseTrainer);
  }

  /** The service stops, or the job was given to another worker. */
  get interrupted(): boolean {
    return this.signal.aborted;
  }

  /** The trainer, or a step of the service, made progress. */
  heard(): void {
    this.heardAt = Date.now();
  }

  /** Throws where the run is to end here. */
  check(): void {
    if (this.cancelled) throw new Cancelled();
    if (this.signal.aborted) throw new Error(`run ${this.run.id} is interrupted and will resume`);
  }

  /** Resolves at once where the run is interrupted. */
  async pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.signal }).catch(() => undefined);
  }

  async over(trainer: RunningTrainer): Promise<RunResult> {
    this.trainer = trainer;
    if (this.signal.aborted) this.releaseTrainer();
    else if (this.cancelled) this.stopTrainer();
    try {
      return await trainer.done;
    } finally {
      this.trainer = null;
    }
  }

  close(): void {
    clearInterval(this.timer);
    this.signal.removeEventListener('abort', this.releaseTrainer);
  }

  private async look(): Promise<void> {
    try {
      // As good as dead: it is ended, and started again like one that died.
      if (Date.now() - this.heardAt > SILENT_TRAINER_MS) this.stopTrainer();
      await this.runs.updateOpen(this.run.id, { heartbeatAt: new Date() });
      const { cancelRequested } = (await this.runs.find(this.run.id)) ?? { cancelRequested: true };
      if (!cancelRequested) return;
      this.cancelled = true;
      this.stopTrainer();
    } catch {
      // The database is away for a moment: the trainer goes on, and the next look is a second from now.
    }
  }

  private readonly stopTrainer = (): void => {
    void this.trainer?.stop();
  };

  private readonly releaseTrainer = (): void => {
    void this.trainer?.release();
  };
}

function estimateOf({ metrics }: RunProgress): number | undefined {
  const seconds = metrics?.['estimateSeconds'];
  return typeof seconds === 'number' && seconds >= 0 ? seconds : undefined;
}

function stage(name: string, progress: number): RunProgress {
  return { at: new Date().toISOString(), stage: name, progress };
}

/** Calls at most once an interval, one at a time, always with the newest value; the last one is not lost. */
function throttled(call: (progress: RunProgress) => Promise<void>): (progress: RunProgress) => void {
  let newest: RunProgress | null = null;
  let busy = false;
  const next = async (): Promise<void> => {
    while (newest) {
      const value = newest;
      newest = null;
      await call(value).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, EVENT_INTERVAL_MS));
    }
    busy = false;
  };
  return (progress) => {
    newest = progress;
    if (busy) return;
    busy = true;
    void next();
  };
}
