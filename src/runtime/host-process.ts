/**
 * One model host as its parent sees it: at most two jobs at a time, one that runs and one that waits behind it.
 *
 *   loading ──▶ ready ──▶ ending ──▶ gone
 *      └──────────┴── crash ───────────▲     `onGone` hands back the jobs it had, the running one first
 */
import { fork, type ChildProcess } from 'node:child_process';
import { FewloopError } from '../common/errors.js';
import { childEnvironment } from '../config/config.js';
import type { HostBatch, HostResult } from '../inference/types.js';
import { hostEnvironment } from './host-environment.js';
import { yieldProcessor } from './spare-time.js';
import { batchTensors, resultOf, type FromHost, type HostGraph, type HostSettings, type ToHost } from './protocol.js';

/** A batch on its way, with the digest of its graph. */
export interface Job {
  graph: string;
  batch: HostBatch;
  /** How many hosts ended while they ran it. */
  crashes: number;
  resolve(result: HostResult): void;
  reject(error: Error): void;
}

export interface HostEvents {
  /** A job has been answered: there is room for another. */
  onFree(): void;
  /** The process ended without having been asked to; `why` with its signal or code. */
  onGone(host: HostProcess, unfinished: Job[], why: string): void;
}

export const JOBS_A_HOST = 2;
const LOAD_TIMEOUT_MS = 120_000;
const END_TIMEOUT_MS = 10_000;

// Compiled, this file lies beside host.js; under the test runner beside host.ts, which Node runs as it is.
const HOST_FILE = new URL(import.meta.url.endsWith('.ts') ? './host.ts' : './host.js', import.meta.url);

export class HostProcess {
  readonly #child: ChildProcess;
  readonly #events: HostEvents;
  readonly #jobs = new Map<number, Job>();
  readonly #gone: Promise<void>;
  #nextJob = 0;
  #state: 'loading' | 'ready' | 'ending' | 'gone' = 'loading';
  #loaded: { resolve(): void; reject(error: Error): void } | undefined;

  private constructor(
    readonly device: string,
    events: HostEvents,
  ) {
    this.#events = events;
    this.#child = fork(HOST_FILE, {
      serialization: 'advanced',
      execArgv: [],
      env: hostEnvironment(device, childEnvironment()),
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    this.#child.on('message', (message) => this.#onMessage(message as FromHost));
    this.#gone = new Promise((resolve) => {
      const gone = (why: string) => {
        this.#onGone(why);
        resolve();
      };
      this.#child.once('exit', (code, signal) => gone(`ended with ${signal ?? `code ${code}`}`));
      // Without a pid it never started, and there will be no 'exit'. Other errors (a failed send) precede the exit.
      this.#child.on('error', (error) => this.#child.pid === undefined && gone(error.message));
    });
  }

  /** A host with all graphs loaded and warm. Throws BUNDLE_INVALID where ONNX Runtime refuses a graph. */
  static async start(graphs: HostGraph[], settings: HostSettings, events: HostEvents): Promise<HostProcess> {
    const host = new HostProcess(settings.device, events);
    const timer = setTimeout(() => host.kill(), LOAD_TIMEOUT_MS);
    try {
      const loaded = new Promise<void>((resolve, reject) => (host.#loaded = { resolve, reject }));
      await Promise.all([loaded, host.#load(graphs, settings)]);
      host.#state = 'ready';
      return host;
    } catch (error) {
      await host.end();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** How many more jobs it takes now. */
  get room(): number {
    return this.#state === 'ready' ? JOBS_A_HOST - this.#jobs.size : 0;
  }

  submit(job: Job): void {
    const id = this.#nextJob++;
    this.#jobs.set(id, job);
    this.#send({ type: 'run', job: id, graph: job.graph, tensors: batchTensors(job.batch) });
  }

  /** Asks it to end after the jobs it has, and waits until the process is gone. */
  async end(): Promise<void> {
    if (this.#state === 'gone') return;
    this.#state = 'ending';
    this.#send({ type: 'end' });
    const timer = setTimeout(() => this.kill(), END_TIMEOUT_MS);
    await this.#gone;
    clearTimeout(timer);
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  async #load(graphs: HostGraph[], settings: HostSettings): Promise<void> {
    // Before there are sessions, whose threads inherit it.
    if (settings.spare && this.#child.pid !== undefined) await yieldProcessor(this.#child.pid);
    this.#send({ type: 'load', graphs, settings });
  }

  #send(message: ToHost): void {
    // A failed send means that the process is ending: its exit tells what becomes of its jobs.
    this.#child.send(message, () => undefined);
  }

  #onMessage(message: FromHost): void {
    if (message.type === 'loaded') return this.#loaded?.resolve();
    if (message.type === 'load-failed') {
      const text = `the model host could not load the graph: ${message.message}`;
      return this.#loaded?.reject(new FewloopError('BUNDLE_INVALID', text));
    }
    const job = this.#jobs.get(message.job);
    if (!job) return;
    this.#jobs.delete(message.job);
    try {
      if (message.type === 'run-failed') throw new FewloopError('INTERNAL', `the model host: ${message.message}`);
      job.resolve(resultOf(message.tensors));
    } catch (error) {
      job.reject(error as Error);
    }
    this.#events.onFree();
  }

  #onGone(why: string): void {
    const asked = this.#state === 'ending';
    const loading = this.#state === 'loading';
    this.#state = 'gone';
    const unfinished = [...this.#jobs.values()];
    this.#jobs.clear();
    if (loading) this.#loaded?.reject(new FewloopError('INTERNAL', `a model host ${why} while it loaded`));
    else if (!asked || unfinished.length > 0) this.#events.onGone(this, unfinished, why);
  }
}
