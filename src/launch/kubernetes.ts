/**
 * The trainer as a Kubernetes Job that mounts the run's folder from the claim that the service keeps its data in.
 * Invariants: a run has at most one Job, whose name is the run's, and a task at most one that is not over; a Job has
 * at most one pod at a time; a service that ends leaves its Job at work, and the one that takes the run up finds it.
 * Pods belong to their Job and go with it; a Job that is over goes after an hour, or when its run is tried again.
 * May import: task.
 *
 *   others of the task, and what is left of a failed try: deleted
 *        ▼
 *   none of the run ──▶ created ──┐
 *   one of the run ──▶ taken over ┴▶ waiting for a pod ──▶ running ──▶ complete, failed, or gone ──▶ result
 *        │ stop: deleted, waits until its pods are gone          │ release: left as it is
 *        ▼                                                       ▼
 *     STOPPED                                                 STOPPED
 */
import type { V1Job, V1Pod } from '@kubernetes/client-node';
import { appendFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { Cluster, codeOf, messageOf, persistently, type Followed } from './kubernetes-cluster.js';
import { jobName, jobOf, runSelector, taskSelector, type JobSettings } from './kubernetes-job.js';
import { isEnded, isOver, newest, phaseOf, terminated, type Ended } from './kubernetes-phase.js';
import type { Launcher, RunningTrainer } from './launcher.js';
import { ProgressTail } from './progress-tail.js';
import {
  clearResult,
  LOG_FILE,
  PROGRESS_FILE,
  readResult,
  readRunSettings,
  type RunProgress,
  type RunResult,
  type RunSettings,
} from './run-folder.js';

/** A waiting run is told of so often: it is not a silent one. */
const WAITING_MS = 10_000;
const LOG_TAIL_CHARS = 2000;
/** A network file system may keep for so long that a file was not there. */
const RESULT_VISIBLE_MS = 60_000;
/** A node that is lost keeps its pod, and so the Job; the next start at the folder waits on. */
const GONE_MS = 120_000;

export interface KubernetesLauncherOptions extends JobSettings {
  /** As in Kept: tests do not wait. */
  resultVisibleMs?: number;
}

export class KubernetesLauncher implements Launcher {
  /** Of failed Jobs whose end was told by this process: another start at their run is another try. */
  private readonly told = new Set<string>();

  constructor(
    private readonly cluster: Cluster,
    private readonly options: KubernetesLauncherOptions,
  ) {}

  start(folder: string, onProgress: (progress: RunProgress) => void): RunningTrainer {
    const attempt = new Attempt(this.cluster, this.options, this.told, folder, onProgress);
    return { done: attempt.done, stop: () => attempt.stop(), release: () => attempt.release() };
  }

  async end(folder: string): Promise<void> {
    const run = await readRunSettings(folder);
    if (run === null) return;
    const name = jobName(run.runId);
    const job = await this.cluster.findJob(name);
    if (job === null || isOver(job)) return;
    await this.cluster.deleteJob(name);
    await untilGone(this.cluster, runSelector(run.runId), [name], AbortSignal.timeout(GONE_MS)).catch(() => undefined);
  }
}

class Attempt {
  readonly done: Promise<RunResult>;
  private readonly stopping = new AbortController();
  private readonly released = new AbortController();
  private readonly ending = AbortSignal.any([this.stopping.signal, this.released.signal]);
  /** Empty: for nothing, it runs. */
  private waitsFor = '';

  constructor(
    private readonly cluster: Cluster,
    private readonly options: KubernetesLauncherOptions,
    private readonly told: Set<string>,
    private readonly folder: string,
    private readonly onProgress: (progress: RunProgress) => void,
  ) {
    this.done = this.run();
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await this.done;
  }

  async release(): Promise<void> {
    this.released.abort();
    await this.done;
  }

  private async run(): Promise<RunResult> {
    const tail = new ProgressTail(path.join(this.folder, PROGRESS_FILE), this.onProgress);
    const waiting = setInterval(() => this.tellWaiting(), WAITING_MS);
    const run = await readRunSettings(this.folder);
    try {
      if (run === null) return failure('ENVIRONMENT', `${this.folder} has no run.json`);
      return await this.attempt(run);
    } catch (error) {
      if (this.released.signal.aborted) return failure('STOPPED', 'left to whoever takes the run up');
      if (run !== null && this.stopping.signal.aborted) return await this.stopped(run);
      return failure('ENVIRONMENT', this.refusal(error));
    } finally {
      clearInterval(waiting);
      tail.close();
    }
  }

  private async attempt(run: RunSettings): Promise<RunResult> {
    const name = jobName(run.runId);
    await this.clearTheWay(run);
    if ((await this.call(() => this.cluster.findJob(name))) === null) {
      await clearResult(this.folder);
      this.ending.throwIfAborted();
      await this.call(() => this.cluster.createJob(jobOf(this.options, run, this.folder)));
    }
    const followed = this.cluster.follow(runSelector(run.runId));
    try {
      const { phase, uid } = await followed.until(() => this.look(followed, name), this.ending);
      const result = await this.outcomeOf(run, phase);
      if (!result.ok && uid !== undefined) this.told.add(uid);
      return result;
    } finally {
      followed.close();
    }
  }

  /** Jobs of other runs of the task, which nobody waits for, and what an earlier try at this one left. */
  private async clearTheWay(run: RunSettings): Promise<void> {
    const selector = taskSelector(run.task, this.options);
    const inTheWay = ({ metadata, ...job }: V1Job) =>
      metadata?.name === jobName(run.runId)
        ? metadata.deletionTimestamp !== undefined || this.told.has(metadata.uid ?? '')
        : !isOver(job);
    const names = (await this.call(() => this.cluster.listJobs(selector)))
      .filter(inTheWay)
      .map(({ metadata }) => metadata?.name ?? '');
    if (names.length === 0) return;
    for (const name of names) await this.call(() => this.cluster.deleteJob(name));
    this.wait('the Job before it to end');
    await untilGone(this.cluster, selector, names, this.ending);
  }

  private look(followed: Followed, name: string): { phase: Ended; uid: string | undefined } | undefined {
    const job = followed.job(name);
    const pods = followed.podsOf(name);
    if (job === undefined || pods === undefined) return undefined;
    const phase = phaseOf(job, pods);
    if (phase.kind === 'waiting') this.wait(phase.why);
    if (phase.kind === 'running') this.waitsFor = '';
    return isEnded(phase) ? { phase, uid: job?.metadata?.uid } : undefined;
  }

  private async outcomeOf({ runId }: RunSettings, phase: Ended): Promise<RunResult> {
    if (phase.kind === 'gone') return failure('CRASHED', 'its Job was deleted by somebody else');
    // Asked anew: Jobs and pods are watched apart, and a Job's end may be heard of before its pod's.
    const pod = newest(await this.call(() => this.cluster.listPods(runSelector(runId))));
    const log = await this.keepLog(pod);
    if (phase.kind === 'complete') {
      const result = await this.writtenResult();
      return result ?? failure('CRASHED', `the trainer ended well and without a result: ${log}`);
    }
    const { reason, message } = phase;
    if (reason === 'DeadlineExceeded') return failure('DEADLINE_EXCEEDED', this.lateness());
    const end = terminated(pod);
    if (end?.reason === 'OOMKilled') {
      const limit = `FEWLOOP_TRAINER_MEMORY=${this.options.memory}`;
      return failure('OUT_OF_MEMORY', `the trainer took more memory than ${limit} allows; ${log}`);
    }
    const result = await readResult(this.folder);
    if (result && !result.ok) return result;
    const how = end ? `${end.reason ?? 'ended'}, exit status ${end.exitCode}` : `${reason}: ${message}`;
    return failure('CRASHED', `the trainer ended without a result (${how}): ${log}`);
  }

  private lateness(): string {
    const late = `its Job was not over within FEWLOOP_TRAINER_DEADLINE_S=${this.options.deadlineS}`;
    return this.waitsFor === '' ? late : `${late}; it waited for ${this.waitsFor}`;
  }

  private async writtenResult(): Promise<RunResult | null> {
    const giveUpAt = Date.now() + (this.options.resultVisibleMs ?? RESULT_VISIBLE_MS);
    for (;;) {
      const result = await readResult(this.folder);
      if (result !== null || Date.now() >= giveUpAt) return result;
      await sleep(1000);
    }
  }

  /** Puts what the pod printed into trainer.log; answers the end of it. */
  private async keepLog(pod: V1Pod | undefined): Promise<string> {
    const log = (pod && (await this.cluster.log(pod))) ?? terminated(pod)?.message ?? '';
    await appendFile(path.join(this.folder, LOG_FILE), log);
    return log.slice(-LOG_TAIL_CHARS).trim();
  }

  private async stopped(run: RunSettings): Promise<RunResult> {
    const name = jobName(run.runId);
    const until = AbortSignal.any([this.released.signal, AbortSignal.timeout(GONE_MS)]);
    this.wait('the trainer to stop');
    try {
      await persistently(() => this.cluster.deleteJob(name), this.released.signal, this.onTrouble);
      await untilGone(this.cluster, runSelector(run.runId), [name], until);
      return failure('STOPPED', 'the trainer was stopped');
    } catch (error) {
      return failure('STOPPED', until.aborted ? 'its Job was deleted, and is not gone yet' : this.refusal(error));
    }
  }

  private call<T>(call: () => Promise<T>): Promise<T> {
    return persistently(call, this.ending, this.onTrouble);
  }

  private readonly onTrouble = (message: string): void => {
    this.wait(`the Kubernetes API: ${message}`);
  };

  private wait(what: string): void {
    if (what === this.waitsFor) return;
    this.waitsFor = what;
    this.tellWaiting();
  }

  private tellWaiting(): void {
    if (this.waitsFor === '') return;
    this.onProgress({ at: new Date().toISOString(), stage: `waiting for ${this.waitsFor}`, progress: 0 });
  }

  private refusal(error: unknown): string {
    const code = codeOf(error);
    if (code === undefined) return messageOf(error);
    const hint = code === 403 ? ' (what the service account needs is in k8s/base/trainer/rbac.yaml)' : '';
    return `the Kubernetes API refuses (${code}): ${messageOf(error)}${hint}`;
  }
}

async function untilGone(cluster: Cluster, selector: string, names: string[], signal: AbortSignal): Promise<void> {
  const followed = cluster.follow(selector);
  const gone = () => names.every((name) => followed.job(name) === null) || undefined;
  await followed.until(gone, signal).finally(() => followed.close());
}

function failure(code: string, message: string): RunResult {
  return { ok: false, code, message };
}
