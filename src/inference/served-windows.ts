/**
 * What each version answered lately in this process: whether it failed, what it said, how long a request took. For who
 * watches a new version. Bounded: the last answers of the last versions of a task.
 */
import type { FewloopError } from '../common/errors.js';

export interface ServedWindow {
  answered: number;
  /** By a defect: what callers do wrong, and what a busy service refuses, is not among them. */
  failed: number;
  /**
   * Texts by label, each once, by what was said of it last; several labels, a line each, or none are one. A text that
   * comes often is no evidence often: a canary's share of the requests is chosen by text, and has it always or never.
   */
  labels: Map<string, number>;
  /** Of interactive requests, from request to answer. */
  latenciesMs: number[];
}

type Served =
  { ok: true; itemKey: string; prediction: { labels: readonly string[] } } | { ok: false; error: FewloopError };

/** Without a label: it failed. */
type Noted = { atMs: number; label: null } | { atMs: number; label: string; itemKey: string };

const ANSWERS = 2000;
const VERSIONS = 3;

/** The last `size` that were added. */
class Ring<T> {
  readonly #kept: T[] = [];
  #next = 0;

  constructor(private readonly size: number) {}

  add(value: T): void {
    this.#kept[this.#next] = value;
    this.#next = (this.#next + 1) % this.size;
  }

  /** The oldest first. */
  values(): T[] {
    return [...this.#kept.slice(this.#next), ...this.#kept.slice(0, this.#next)];
  }
}

export class ServedWindows {
  /** Task → version → what it answered; versions by their last first use. */
  readonly #tasks = new Map<
    string,
    Map<number, { answers: Ring<Noted>; latencies: Ring<[atMs: number, ms: number]> }>
  >();

  /** `latencyMs`: of the whole request, where somebody waited for it. */
  note(task: string, version: number, outcomes: Iterable<Served>, latencyMs: number | null): void {
    const { answers, latencies } = this.#ringsOf(task, version);
    const atMs = Date.now();
    for (const outcome of outcomes) {
      if (outcome.ok) {
        const { itemKey, prediction } = outcome;
        answers.add({ atMs, label: prediction.labels.toSorted().join('\n'), itemKey });
      } else if (outcome.error.code === 'INTERNAL') answers.add({ atMs, label: null });
    }
    if (latencyMs !== null) latencies.add([atMs, latencyMs]);
  }

  /** Since a time, by the clock of this machine. */
  of(task: string, version: number, sinceMs: number): ServedWindow {
    const window: ServedWindow = { answered: 0, failed: 0, labels: new Map(), latenciesMs: [] };
    const rings = this.#tasks.get(task)?.get(version);
    if (!rings) return window;
    const labelsOf = new Map<string, string>();
    for (const noted of rings.answers.values()) {
      if (noted.atMs < sinceMs) continue;
      if (noted.label === null) window.failed += 1;
      else {
        window.answered += 1;
        labelsOf.set(noted.itemKey, noted.label);
      }
    }
    for (const label of labelsOf.values()) window.labels.set(label, (window.labels.get(label) ?? 0) + 1);
    window.latenciesMs = rings.latencies.values().flatMap(([atMs, ms]) => (atMs < sinceMs ? [] : [ms]));
    return window;
  }

  #ringsOf(task: string, version: number) {
    let versions = this.#tasks.get(task);
    if (!versions) this.#tasks.set(task, (versions = new Map()));
    let rings = versions.get(version);
    if (!rings) {
      rings = { answers: new Ring(ANSWERS), latencies: new Ring(ANSWERS) };
      versions.set(version, rings);
      if (versions.size > VERSIONS) versions.delete(versions.keys().next().value!);
    }
    return rings;
  }
}
