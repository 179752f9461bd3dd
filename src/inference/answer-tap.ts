/**
 * Copies of what was just answered to callers and to the stream, for who tries another version on the same texts.
 * Bounded: where nobody takes them fast enough, what comes is counted and left, so that answering never waits.
 */
import type { Item } from '../task/types.js';
import type { Answered } from './types.js';

export interface TappedAnswer extends Pick<Answered, 'itemKey' | 'prediction'> {
  item: Item;
}

export interface TapCounts {
  /** Answers of `from` that were not kept. */
  missed: number;
  /** Answers of `watched`, those from the cache of recent answers not among them. */
  answered: number;
}

interface Tap extends TapCounts {
  from: number;
  watched: number;
  waiting: TappedAnswer[];
  forgotten: number;
}

const WAITING = 256;

export class AnswerTap {
  readonly #taps = new Map<string, Tap>();

  /** From now on answers of version `from` are copied, those of `watched` counted. One tap a task. */
  open(task: string, { from, watched }: { from: number; watched: number }): void {
    this.#taps.set(task, { from, watched, waiting: [], missed: 0, answered: 0, forgotten: 0 });
  }

  close(task: string): void {
    this.#taps.delete(task);
  }

  offer(task: string, version: number, items: ReadonlyMap<string, Item>, answers: Iterable<{ ok: boolean }>): void {
    const tap = this.#taps.get(task);
    if (!tap) return;
    const answered = [...answers].filter((answer): answer is Answered => answer.ok);
    if (version === tap.watched) tap.answered += answered.length;
    if (version !== tap.from) return;
    for (const { itemKey, prediction } of answered) {
      if (tap.waiting.length < WAITING) tap.waiting.push({ item: items.get(itemKey)!, itemKey, prediction });
      else tap.missed += 1;
    }
  }

  /** Texts are not known here by what was forgotten: all that wait are let go, and whoever took some is to see it. */
  forget(task: string): void {
    const tap = this.#taps.get(task);
    if (!tap) return;
    tap.missed += tap.waiting.splice(0).length;
    tap.forgotten += 1;
  }

  /** How often, since the tap was opened. */
  forgotten(task: string): number {
    return this.#taps.get(task)?.forgotten ?? 0;
  }

  waiting(task: string): number {
    return this.#taps.get(task)?.waiting.length ?? 0;
  }

  /** The oldest, at most so many. */
  take(task: string, most: number): TappedAnswer[] {
    return this.#taps.get(task)?.waiting.splice(0, most) ?? [];
  }

  /** Since it was asked last. */
  counts(task: string): TapCounts {
    const tap = this.#taps.get(task);
    const { missed = 0, answered = 0 } = tap ?? {};
    if (tap) tap.missed = tap.answered = 0;
    return { missed, answered };
  }
}
