/**
 * The hosts of one set of graphs, shared out to the devices in turn, with the queue before them. Jobs go to the host
 * with the most room, in order. A host that ends unasked is replaced. The job it was running is tried once more and then
 * given up: a batch that ends hosts must not end them all. Jobs that only waited in it lose nothing.
 */
import { Logger } from '@nestjs/common';
import { setTimeout } from 'node:timers/promises';
import { FewloopError } from '../common/errors.js';
import { NO_METRICS, type Metrics } from '../common/metrics/metrics.js';
import type { HostBatch, HostResult } from '../inference/types.js';
import { devicesOf, isGpu } from '../common/devices.js';
import { HostProcess, type HostEvents, type Job } from './host-process.js';
import type { HostGraph, HostSettings } from './protocol.js';

const CRASHES_ALLOWED = 1;
const FIRST_RESTART_DELAY_MS = 100;
const LONGEST_RESTART_DELAY_MS = 30_000;

export interface HostState {
  /** Processes that are ready for jobs. */
  loaded: number;
  expected: number;
  /** They compute for nobody who waits. */
  spare: boolean;
}

export class HostGroup {
  readonly #log = new Logger(HostGroup.name);
  readonly #hosts = new Set<HostProcess>();
  readonly #queue: Job[] = [];
  readonly #events: HostEvents;
  readonly #drained: (() => void)[] = [];
  readonly #replacements = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  #pending = 0;
  #failedRestarts = 0;
  #closed = false;

  private constructor(
    private readonly graphs: HostGraph[],
    private readonly settings: HostSettings,
    private readonly expected: number,
    private readonly metrics: Metrics,
  ) {
    this.#events = {
      onFree: () => this.#pump(),
      onGone: (host, unfinished, why) => this.#onGone(host, unfinished, why),
    };
  }

  /** All hosts loaded, or none left running and the error of the first that failed. */
  static async start(
    graphs: HostGraph[],
    settings: HostSettings,
    hosts: number,
    metrics: Metrics = NO_METRICS,
  ): Promise<HostGroup> {
    const group = new HostGroup(graphs, settings, hosts, metrics);
    const devices = devicesOf(settings.device);
    const starts = Array.from({ length: hosts }, (_, i) => group.#add(devices[i % devices.length]!));
    const outcomes = await Promise.allSettled(starts);
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (!failed) return group;
    await group.close();
    throw failed.reason;
  }

  pids(): number[] {
    return [...this.#hosts].map((host) => host.pid);
  }

  get isOnGpu(): boolean {
    return isGpu(this.settings.device);
  }

  state(): HostState {
    return { loaded: this.#hosts.size, expected: this.expected, spare: this.settings.spare ?? false };
  }

  run(graph: string, batch: HostBatch): Promise<HostResult> {
    return new Promise<HostResult>((resolve, reject) => {
      if (this.#closed) return reject(new FewloopError('INTERNAL', 'the model host has been ended'));
      if (this.#hosts.size === 0 && this.#failedRestarts > 0) return reject(noHost());
      this.#pending++;
      const settled = () => {
        if (--this.#pending === 0) for (const done of this.#drained.splice(0)) done();
      };
      this.#queue.push({
        graph,
        batch,
        crashes: 0,
        resolve: (result) => (settled(), resolve(result)),
        reject: (error) => (settled(), reject(error)),
      });
      this.#pump();
    });
  }

  /** Finishes what has been accepted, then ends the processes. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#pending > 0) await new Promise<void>((resolve) => this.#drained.push(resolve));
    this.#stop.abort();
    await Promise.all(this.#replacements);
    await Promise.all([...this.#hosts].map((host) => host.end()));
    this.#hosts.clear();
  }

  get #files(): string {
    return this.graphs.map(({ path }) => path).join(', ');
  }

  async #add(device: string): Promise<void> {
    this.#hosts.add(await HostProcess.start(this.graphs, { ...this.settings, device }, this.#events));
  }

  #pump(): void {
    while (this.#queue.length > 0) {
      let roomiest: HostProcess | undefined;
      for (const host of this.#hosts) if (host.room > (roomiest?.room ?? 0)) roomiest = host;
      if (!roomiest) return;
      roomiest.submit(this.#queue.shift()!);
    }
  }

  #onGone(host: HostProcess, unfinished: Job[], why: string): void {
    this.#hosts.delete(host);
    const left = `${this.#hosts.size} of ${this.expected} left`;
    this.#log.warn(`a model host (pid ${host.pid}) ${why}: ${left} for ${this.#files}`);
    const [running, ...waiting] = unfinished;
    const again = [...waiting];
    if (running && ++running.crashes <= CRASHES_ALLOWED) again.unshift(running);
    else running?.reject(new FewloopError('INTERNAL', `the model host ended ${running.crashes} times on this batch`));
    this.#queue.unshift(...again);
    const replacement = this.#replace(host.device).finally(() => this.#replacements.delete(replacement));
    this.#replacements.add(replacement);
    this.#pump();
  }

  /** Tries until a host has started; a group that closes still needs one while jobs wait. */
  async #replace(device: string): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await this.#add(device);
        this.#failedRestarts = 0;
        this.metrics.add('fewloop_host_restarts_total', {});
        return this.#pump();
      } catch (error) {
        const delayMs = Math.min(LONGEST_RESTART_DELAY_MS, FIRST_RESTART_DELAY_MS * 2 ** this.#failedRestarts++);
        const why = `${(error as Error).message}; tried again in ${delayMs / 1000} s`;
        this.#log.error(`no model host in its place for ${this.#files}: ${why}`);
        if (this.#hosts.size === 0) for (const job of this.#queue.splice(0)) job.reject(noHost());
        await setTimeout(delayMs, undefined, { signal: this.#stop.signal, ref: false }).catch(() => undefined);
      }
    }
  }
}

function noHost(): FewloopError {
  return new FewloopError('INTERNAL', 'no model host could be started');
}
