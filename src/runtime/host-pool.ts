/**
 * Model hosts by what they hold: bundles with the same graphs share hosts, so that all zero-shot tasks share the base
 * graph's; those that may only have what is spare share theirs. The last lease to go drains and ends them. Hosts are
 * admitted by memory: before new ones start, what they will take (measured where the graphs have run here, else
 * estimated) must fit beside what the others take, those of other processes of the machine among them
 * (memory-claims.ts); where it does not, whoever holds leases is asked to give some back.
 * Imports of other modules: types of inference, errors.
 */
import { FewloopError } from '../common/errors.js';
import { NO_METRICS, type Metrics } from '../common/metrics/metrics.js';
import type { GraphRunner, HostBatch, HostResult } from '../inference/types.js';
import { HostGroup, type HostState } from './host-group.js';
import { estimatedBytes, measuredBytes } from './host-memory.js';
import { MemoryClaims } from './memory-claims.js';
import type { PackedGraphs } from './packed-graphs.js';
import type { HostGraph, HostSettings } from './protocol.js';

const NO_ROOM_RETRY_MS = 2000;
/** Hosts grow with the batches that they compute, for minutes after they have opened. */
const MEASURE_EVERY_MS = 30_000;

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
  /** Of all hosts together; absent: as much as there is. */
  memoryBytes?: number;
  /** Where the machine's processes tell what they hold; absent or null: `memoryBytes` are this one's. */
  claimsFolder?: string | null;
  /** Makes graphs ready, so that hosts share their weights. */
  packed?: PackedGraphs;
}

interface SharedGroup {
  /** Digests of its graphs. */
  set: string;
  leases: number;
  started: Promise<HostGroup>;
  /** Once it has. */
  group: HostGroup | undefined;
  /** Estimated until its hosts are warm. */
  bytes: number;
}

export class HostPool {
  /** Gives back what nobody uses; false where there is nothing of the kind. For who holds leases to set. */
  makeRoom: () => Promise<boolean> = async () => false;
  readonly #groups = new Map<string, SharedGroup>();
  readonly #ending = new Set<Promise<void>>();
  /** Sets of graphs that have run here → the most that their hosts took. */
  readonly #measured = new Map<string, number>();
  readonly #claims: MemoryClaims | undefined;
  readonly #timer: NodeJS.Timeout;

  constructor(
    private readonly settings: HostPoolSettings,
    private readonly metrics: Metrics = NO_METRICS,
  ) {
    const { claimsFolder } = settings;
    if (claimsFolder) this.#claims = new MemoryClaims(claimsFolder, () => void this.#giveBack());
    this.#timer = setInterval(() => void this.measure(), MEASURE_EVERY_MS).unref();
  }

  /**
   * Hosts with these graphs loaded and warm: new ones, or those that hold the same graphs already. Throws OVERLOADED
   * where there is no memory for new ones and `makeRoom`, asked again and again, has nothing more to give; without
   * `mayEvict` it is not asked. `spare`: hosts of their own that compute while no other process wants the processor.
   */
  async open(graphs: GraphFile[], { mayEvict = true, spare = false } = {}): Promise<HostLease> {
    const bySha = new Map(graphs.map(({ sha256, path }) => [sha256, path]));
    const set = [...bySha.keys()].sort().join(' ');
    const key = spare ? `spare ${set}` : set;
    const files = [...bySha].map(([sha256, path]) => ({ sha256, path }));
    if (!this.#groups.has(key)) await this.#admit(set, files, mayEvict);
    let shared = this.#groups.get(key);
    if (!shared) {
      const started = this.#start(files, spare);
      shared = { set, leases: 0, started, group: undefined, bytes: this.#bytesOf(set, files) };
      this.#groups.set(key, shared);
      this.#claims?.hold(this.bytes);
    }
    const used = shared;
    used.leases++;
    try {
      const group = (used.group = await used.started);
      await this.#take(used, group);
      return new HostLease(
        group,
        new Map(graphs.map(({ id, sha256 }) => [id, sha256])),
        () => (used.leases > 1 ? 0 : used.bytes),
        () => this.#leave(key, used),
      );
    } catch (error) {
      if (this.#groups.get(key) === used) this.#groups.delete(key);
      this.#claims?.hold(this.bytes);
      throw error;
    }
  }

  /** Takes note of how hosts have grown; where together they take too much, what nobody uses is given back. */
  async measure(): Promise<void> {
    for (const shared of this.#groups.values()) if (shared.group) await this.#take(shared, shared.group);
    while (!this.#fits(0) && (this.#claims?.mayGive ?? true)) if (!(await this.#giveBack())) return;
  }

  /** Bytes that the hosts take, those that still load by estimate. */
  get bytes(): number {
    return [...this.#groups.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Processes of all hosts, for the readiness report and for tests. */
  async pids(): Promise<number[]> {
    const groups = await Promise.all([...this.#groups.values()].map(({ started }) => started.catch(() => undefined)));
    return groups.flatMap((group) => group?.pids() ?? []);
  }

  /** What the hosts take now; undefined where the system does not say. */
  measuredBytes(): Promise<number | undefined> {
    return measuredBytes([...this.#groups.values()].flatMap(({ group }) => group?.pids() ?? []));
  }

  /** Of every group that has started. */
  states(): HostState[] {
    return [...this.#groups.values()].flatMap(({ group }) => (group ? [group.state()] : []));
  }

  /** Drains and ends every host, whoever holds leases. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    const groups = [...this.#groups.values()];
    this.#groups.clear();
    await Promise.all(groups.map(({ started }) => started.then((group) => group.close()).catch(() => undefined)));
    await Promise.all(this.#ending);
    this.#claims?.close();
  }

  /** Nobody waits for it: what went wrong is told to whoever asks for that task next. */
  #giveBack(): Promise<boolean> {
    return this.makeRoom().catch(() => false);
  }

  async #take(shared: SharedGroup, group: HostGroup): Promise<void> {
    shared.bytes = (await measuredBytes(group.pids())) ?? shared.bytes;
    this.#measured.set(shared.set, Math.max(shared.bytes, this.#measured.get(shared.set) ?? 0));
    this.#claims?.hold(this.bytes);
  }

  async #start(files: HostGraph[], spare: boolean): Promise<HostGroup> {
    const { packed, hosts, threads, device } = this.settings;
    const graphs = packed ? await packed.of(files) : files;
    return HostGroup.start(graphs, { threads, device, spare }, hosts, this.metrics);
  }

  async #admit(set: string, files: HostGraph[], mayEvict: boolean): Promise<void> {
    const needed = this.#bytesOf(set, files);
    // What fits nowhere is let in alone: refusing it would serve nobody.
    while (this.#groups.size > 0 && !this.#fits(needed)) {
      if (mayEvict && (await this.makeRoom())) continue;
      this.#claims?.want();
      const mb = (bytes: number) => Math.ceil(bytes / 2 ** 20);
      const others = this.#claims ? `, ${mb(this.#claims.others)} MB in other processes` : '';
      throw new FewloopError(
        'OVERLOADED',
        `the model needs about ${mb(needed)} MB beside the ${mb(this.bytes)} MB of those in use${others}, and models ` +
          `may take ${mb(this.settings.memoryBytes!)} MB: raise FEWLOOP_MODEL_MEMORY_MB, or ask again when other tasks rest`,
        { retryAfterMs: NO_ROOM_RETRY_MS },
      );
    }
  }

  #fits(needed: number): boolean {
    const { memoryBytes } = this.settings;
    if (memoryBytes === undefined) return true;
    // Said before it is looked at: of two processes at once one sees the other.
    this.#claims?.hold(this.bytes + needed);
    const fits = this.bytes + needed + (this.#claims?.others ?? 0) <= memoryBytes;
    if (!fits) this.#claims?.hold(this.bytes);
    return fits;
  }

  #bytesOf(set: string, files: HostGraph[]): number {
    const { hosts, packed } = this.settings;
    return this.#measured.get(set) ?? estimatedBytes(files, hosts, packed !== undefined);
  }

  async #leave(key: string, shared: SharedGroup): Promise<void> {
    if (--shared.leases > 0 || this.#groups.get(key) !== shared) return;
    this.#groups.delete(key);
    const ended = shared.started.then((group) => group.close());
    this.#ending.add(ended);
    await ended.finally(() => {
      this.#ending.delete(ended);
      this.#claims?.hold(this.bytes);
    });
  }
}

/** The graphs of one bundle, open. Graph ids are the bundle's own. */
export class HostLease implements GraphRunner {
  #released: Promise<void> | undefined;

  constructor(
    private readonly group: HostGroup,
    private readonly graphs: Map<string, string>,
    private readonly own: () => number,
    private readonly leave: () => Promise<void>,
  ) {}

  run(batch: HostBatch): Promise<HostResult> {
    const sha256 = this.graphs.get(batch.graph);
    if (this.#released) return Promise.reject(new FewloopError('INTERNAL', 'this model has been released'));
    if (!sha256) return Promise.reject(new FewloopError('INTERNAL', `graph ${batch.graph} is not in this bundle`));
    return this.group.run(sha256, batch);
  }

  get hosts(): object {
    return this.group;
  }

  get fixedShapes(): boolean {
    return this.group.isOnGpu;
  }

  pids(): number[] {
    return this.group.pids();
  }

  /** Bytes that giving it back would free: none while others hold the same graphs. */
  get bytes(): number {
    return this.own();
  }

  /** Gives the lease back; where it was the last, waits until the hosts have finished and ended. */
  release(): Promise<void> {
    this.#released ??= this.leave();
    return this.#released;
  }
}
