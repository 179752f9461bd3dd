/**
 * Model hosts by what they hold: bundles with the same graphs share hosts, so that all zero-shot tasks share the base
 * graph's. The last lease to go drains and ends them. Imports of other modules: types of inference, errors.
 */
import { FewloopError } from '../common/errors.js';
import { NO_METRICS, type Metrics } from '../common/metrics/metrics.js';
import type { GraphRunner, HostBatch, HostResult } from '../inference/types.js';
import { HostGroup, type HostState } from './host-group.js';
import type { HostSettings } from './protocol.js';

export interface GraphFile {
  /** What the bundle's members call it. */
  id: string;
  /** Absolute. */
  path: string;
  sha256: string;
}

export interface HostPoolSettings extends HostSettings {
  /** Processes a set of graphs. */
  hosts: number;
}

interface SharedGroup {
  leases: number;
  started: Promise<HostGroup>;
  /** Once it has. */
  group: HostGroup | undefined;
}

export class HostPool {
  readonly #groups = new Map<string, SharedGroup>();
  readonly #ending = new Set<Promise<void>>();

  constructor(
    private readonly settings: HostPoolSettings,
    private readonly metrics: Metrics = NO_METRICS,
  ) {}

  /** Hosts with these graphs loaded and warm: new ones, or those that hold the same graphs already. */
  async open(graphs: GraphFile[]): Promise<HostLease> {
    const bySha = new Map(graphs.map(({ sha256, path }) => [sha256, path]));
    const key = [...bySha.keys()].sort().join(' ');
    let shared = this.#groups.get(key);
    if (!shared) {
      const files = [...bySha].map(([sha256, path]) => ({ sha256, path }));
      const started = HostGroup.start(files, this.settings, this.settings.hosts, this.metrics);
      shared = { leases: 0, started, group: undefined };
      this.#groups.set(key, shared);
    }
    const used = shared;
    used.leases++;
    try {
      const group = (used.group = await used.started);
      return new HostLease(group, new Map(graphs.map(({ id, sha256 }) => [id, sha256])), () => this.#leave(key, used));
    } catch (error) {
      if (this.#groups.get(key) === used) this.#groups.delete(key);
      throw error;
    }
  }

  /** Processes of all hosts, for the readiness report and for tests. */
  async pids(): Promise<number[]> {
    const groups = await Promise.all([...this.#groups.values()].map(({ started }) => started.catch(() => undefined)));
    return groups.flatMap((group) => group?.pids() ?? []);
  }

  /** Of every group that has started. */
  states(): HostState[] {
    return [...this.#groups.values()].flatMap(({ group }) => (group ? [group.state()] : []));
  }

  /** Drains and ends every host, whoever holds leases. */
  async close(): Promise<void> {
    const groups = [...this.#groups.values()];
    this.#groups.clear();
    await Promise.all(groups.map(({ started }) => started.then((group) => group.close()).catch(() => undefined)));
    await Promise.all(this.#ending);
  }

  async #leave(key: string, shared: SharedGroup): Promise<void> {
    if (--shared.leases > 0 || this.#groups.get(key) !== shared) return;
    this.#groups.delete(key);
    const ended = shared.started.then((group) => group.close());
    this.#ending.add(ended);
    await ended.finally(() => this.#ending.delete(ended));
  }
}

/** The graphs of one bundle, open. Graph ids are the bundle's own. */
export class HostLease implements GraphRunner {
  #released: Promise<void> | undefined;

  constructor(
    private readonly group: HostGroup,
    private readonly graphs: Map<string, string>,
    private readonly leave: () => Promise<void>,
  ) {}

  run(batch: HostBatch): Promise<HostResult> {
    const sha256 = this.graphs.get(batch.graph);
    if (this.#released) return Promise.reject(new FewloopError('INTERNAL', 'this model has been released'));
    if (!sha256) return Promise.reject(new FewloopError('INTERNAL', `graph ${batch.graph} is not in this bundle`));
    return this.group.run(sha256, batch);
  }

  pids(): number[] {
    return this.group.pids();
  }

  /** Gives the lease back; where it was the last, waits until the hosts have finished and ended. */
  release(): Promise<void> {
    this.#released ??= this.leave();
    return this.#released;
  }
}
