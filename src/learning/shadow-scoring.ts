/**
 * What a version on trial says of texts that the active one has just answered. It takes only what is spare: a few texts
 * at a time, as background work, and none while anything waits to be answered; a shadow's hosts yield the processor to
 * what is asked meanwhile. What there is no time for is counted.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { AnswerTap, TappedAnswer } from '../inference/answer-tap.js';
import type { InferenceEngine } from '../inference/engine.js';
import type { Prediction, ServedModel } from '../inference/types.js';
import type { Flip, TrialCounts } from '../storage/trials.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { namedNow } from './data-set.js';

export interface Disagreement extends TappedAnswer {
  challenger: Prediction;
}

export interface Compared {
  counts: Omit<TrialCounts, 'asked'>;
  flips: Flip[];
  disagreements: Disagreement[];
}

/** So that what is asked of a canary meanwhile waits for no more than these. */
const TEXTS_AT_ONCE = 4;
const LOOK_AGAIN_MS = 25;
/** Kept until they are taken. */
const DISAGREEMENTS = 20;

export class ShadowScoring {
  #counts = zero();
  #flips = new Map<string, Flip>();
  #disagreements: Disagreement[] = [];
  #forgotten = 0;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  /** `definition`: the task's, whose names are no older than those of either version. */
  constructor(
    private readonly model: ServedModel,
    private readonly definition: TaskDefinition,
    private readonly engine: Pick<InferenceEngine, 'classify' | 'queuedTokens'>,
    private readonly tap: Pick<AnswerTap, 'take' | 'counts' | 'forgotten'>,
  ) {
    this.#running = this.#run();
  }

  /** Since it was asked last. */
  take(): Compared {
    this.#forget();
    const { missed, answered } = this.tap.counts(this.model.task);
    const counts = { ...this.#counts, answered, missed: this.#counts.missed + missed };
    const compared = { counts, flips: [...this.#flips.values()], disagreements: this.#disagreements };
    this.#counts = zero();
    this.#flips = new Map();
    this.#disagreements = [];
    return compared;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      this.#forget();
      const tapped = this.engine.queuedTokens > 0 ? [] : this.tap.take(this.model.task, TEXTS_AT_ONCE);
      if (tapped.length > 0) await this.#score(tapped);
      else await sleep(LOOK_AGAIN_MS, undefined, { signal: this.#stop.signal }).catch(() => undefined);
    }
  }

  async #score(tapped: TappedAnswer[]): Promise<void> {
    const items = tapped.map(({ item }) => item);
    // Refused as a whole: the queue has filled meanwhile.
    const outcomes = await this.engine
      .classify(this.model, { items, priority: 'background', anew: true })
      .catch(() => null);
    if (this.#forget() || outcomes === null) {
      this.#counts.missed += tapped.length;
      return;
    }
    outcomes.forEach((outcome, i) => {
      if (outcome.ok) this.#compare(tapped[i]!, outcome.prediction);
      else this.#counts.failed += 1;
    });
  }

  /** Whether a text of the task was forgotten since it was asked last: what was taken before may be it, and is let go. */
  #forget(): boolean {
    const forgotten = this.tap.forgotten(this.model.task);
    if (forgotten === this.#forgotten) return false;
    this.#forgotten = forgotten;
    this.#disagreements = [];
    return true;
  }

  #compare(tapped: TappedAnswer, challenger: Prediction): void {
    this.#counts.compared += 1;
    const flips = flipsOf(this.definition, tapped.prediction.labels, challenger.labels);
    if (flips.length === 0) return;
    this.#counts.changed += 1;
    if (this.#disagreements.length < DISAGREEMENTS) this.#disagreements.push({ ...tapped, challenger });
    // Choices are texts, and each question has its own: there is nothing to count by.
    if (this.definition.kind === 'multiple-choice') return;
    for (const [before, now] of flips) {
      const key = `${before}\n${now}`;
      const flip = this.#flips.get(key) ?? { champion: before, challenger: now, texts: 0 };
      flip.texts += 1;
      this.#flips.set(key, flip);
    }
  }
}

const NONE = '(none)';

/** From which label to which; of several labels, each that is gone and each that has come. Empty: they say the same. */
export function flipsOf(
  definition: TaskDefinition,
  champion: readonly string[],
  challenger: readonly string[],
): [before: string, now: string][] {
  const [before, now] = [namedNow(definition, champion), namedNow(definition, challenger)];
  const gone = before.filter((name) => !now.includes(name));
  const come = now.filter((name) => !before.includes(name));
  if (definition.kind !== 'multi-label') return gone.map((name, i) => [name, come[i]!]);
  return [...gone.map((name): [string, string] => [name, NONE]), ...come.map((name): [string, string] => [NONE, name])];
}

function zero(): Compared['counts'] {
  return { answered: 0, compared: 0, changed: 0, failed: 0, missed: 0 };
}
