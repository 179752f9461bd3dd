/**
 * Inference as the rest of the service calls it. One engine a process: all tasks share its queue.
 * Invariants: outcomes are in the order of the items; an item that fails does not fail its neighbours; identical items
 * of one request are scored once; a request is answered by the one model it was given.
 *
 * Policies: `ensemble` asks the teachers, `student` the student; `cascade` asks the student, and the teachers only
 * where the student's answer would be reviewed or is less sure than the task accepts: in turn, until the label is
 * certain, where the version has a temperature for answers of that kind.
 */
import { FewloopError } from '../common/errors.js';
import { NO_METRICS, secondsSince, type Metrics } from '../common/metrics/metrics.js';
import { validateItem } from '../task/item.js';
import { itemKey } from '../task/keys.js';
import type { Item, ServingPolicy } from '../task/types.js';
import type { AnswerTap } from './answer-tap.js';
import { inTurn } from './in-turn.js';
import { BatchQueue, whyDropped, type QueueLimits } from './infer.js';
import { membersOf, policyOf } from './policy.js';
import { predict, scoreInTurn, scoreMembers, type ItemScores } from './pipeline.js';
import { inPortions, LABELS_A_ROW } from './portions.js';
import { RecentAnswers } from './recent.js';
import type { ServedWindows } from './served-windows.js';
import type { Answered, ClassifyRequest, ServedModel } from './types.js';

export type Outcome = Answered | { ok: false; error: FewloopError };

export interface EngineOptions extends QueueLimits {
  /** UTF-16 units of a text; longer ones are BAD_INPUT. Default 20,000. */
  maxTextLength?: number;
  /** Of recent answers, about; 0, the default, keeps none. */
  cacheBytes?: number;
  /** Told of what the model answered to who waits, and to the stream. */
  windows?: ServedWindows;
  /** Given what was answered so, where it is open for the task. */
  tap?: AnswerTap;
}

export class InferenceEngine {
  private readonly queue: BatchQueue;
  private readonly recent: RecentAnswers;

  constructor(
    private readonly options: EngineOptions,
    private readonly metrics: Metrics = NO_METRICS,
  ) {
    this.queue = new BatchQueue(options, metrics);
    this.recent = new RecentAnswers(options.cacheBytes ?? 0);
  }

  /** Tokens of rows that wait or are with a host. */
  get queuedTokens(): number {
    return this.queue.tokens;
  }

  /** Answers that are kept for those who ask again are gone. */
  forgetRecent(): void {
    this.recent.clear();
  }

  /** Throws BAD_INPUT on `policy`, and OVERLOADED; every other failure is an item's own. */
  async classify(model: ServedModel, request: ClassifyRequest): Promise<Outcome[]> {
    const policy = policyOf(model, request.policy);
    const keys = request.items.map((item) => this.check(model, item));
    const outcomes = new Map<string, Outcome>();
    const unknown = new Map<string, Item>();
    const mustAsk = request.anew === true || whyDropped(request) !== undefined;
    keys.forEach((key, i) => {
      if (typeof key !== 'string' || outcomes.has(key)) return;
      const known = mustAsk ? undefined : this.recent.get(model, policy, key);
      if (known) outcomes.set(key, known);
      else unknown.set(key, request.items[i]!);
    });
    if (outcomes.size > 0) this.metrics.add('fewloop_recent_answers_total', { task: model.task }, outcomes.size);
    const startedAtMs = performance.now();
    const answers = await this.answerTimed(model, policy, unknown, request);
    if (unknown.size > 0 && !request.anew && request.priority !== 'background') {
      const isAwaited = request.priority === 'interactive' && !request.signal?.aborted;
      const latencyMs = isAwaited ? performance.now() - startedAtMs : null;
      this.options.windows?.note(model.task, model.version, answers.values(), latencyMs);
      this.options.tap?.offer(model.task, model.version, unknown, answers.values());
    }
    for (const [key, outcome] of answers) {
      outcomes.set(key, outcome);
      // What nobody waits for comes in bulk and once.
      if (outcome.ok && request.priority !== 'background') this.recent.keep(model, policy, outcome);
    }
    return keys.map((key) => (typeof key === 'string' ? outcomes.get(key)! : { ok: false, error: key }));
  }

  /**
   * What every member (teachers and student) says of each item before offsets: for prior matching and golden texts.
   * Takes empty texts too, which contextual calibration asks for.
   */
  rawScores(model: ServedModel, items: Item[]): Promise<ItemScores[]> {
    return scoreMembers(model, model.members, items, this.queue, { priority: 'bulk' });
  }

  /**
   * What the encoder makes of each item, null where it cannot be scored: of one member, the first that the task's policy
   * asks, and of a text that was answered lately from that answer. Throws OVERLOADED.
   */
  async embeddings(model: ServedModel, items: Item[]): Promise<(Float32Array | null)[]> {
    const policy = policyOf(model);
    const members = membersOf(model, policy === 'ensemble' ? 'ensemble' : 'student').slice(0, 1);
    // Of a cascade's answers some are the student's and some the teachers': no two encoders share a space.
    const known = (item: Item) => (policy === 'cascade' ? undefined : this.recent.get(model, policy, itemKey(item)));
    const found = items.map((item) => known(item)?.embedding);
    const unknown = items.filter((_, i) => !found[i]);
    if (unknown.length > 0)
      this.queue.check(unknown.length, { priority: 'interactive', tokensPerMs: model.tokensPerMs });
    const scores = (await scoreMembers(model, members, unknown, this.queue, { priority: 'interactive' })).values();
    return found.map((embedding) => {
      if (embedding) return embedding;
      const scored = scores.next().value!;
      return scored.ok ? scored.embedding : null;
    });
  }

  private async answerTimed(
    model: ServedModel,
    policy: ServingPolicy,
    items: Map<string, Item>,
    request: ClassifyRequest,
  ): Promise<Map<string, Outcome>> {
    if (items.size === 0) return new Map();
    const startedAtMs = performance.now();
    const outcomes = await this.answer(model, policy, items, request);
    const { task, version } = model;
    const labels = { task, version: String(version), policy, priority: request.priority };
    this.metrics.observe('fewloop_inference_seconds', labels, secondsSince(startedAtMs));
    return outcomes;
  }

  private async answer(
    model: ServedModel,
    policy: ServingPolicy,
    items: Map<string, Item>,
    request: ClassifyRequest,
  ): Promise<Map<string, Outcome>> {
    if (policy !== 'cascade') return this.ask(model, policy, items, request);
    const outcomes = await this.ask(model, 'student', items, request);
    const doubtful = new Map([...items].filter(([key]) => isDoubtful(outcomes.get(key)!, model)));
    const teachers = model.policies.cascade ? 'cascade' : 'ensemble';
    for (const [key, outcome] of await this.ask(model, teachers, doubtful, request)) outcomes.set(key, outcome);
    return outcomes;
  }

  /** `cascade`: the teachers in turn. */
  private async ask(
    model: ServedModel,
    policy: ServingPolicy,
    items: Map<string, Item>,
    request: ClassifyRequest,
  ): Promise<Map<string, Outcome>> {
    if (items.size === 0) return new Map();
    const asked = membersOf(model, policy === 'student' ? 'student' : 'ensemble');
    const [members, score] = policy === 'cascade' ? [inTurn(asked), scoreInTurn] : [asked, scoreMembers];
    // Before rendering and tokenizing: what is dropped or refused has cost nothing.
    const error = whyDropped(request);
    if (!error) this.queue.check(items.size, { ...request, tokensPerMs: model.tokensPerMs });
    const scores = error
      ? [...items].map((): ItemScores => ({ ok: false, error }))
      : await score(model, members, [...items.values()], this.queue, request);
    const weight = (members.length * model.definition.labels.length) / LABELS_A_ROW;
    const outcomes = await inPortions(
      items.keys(),
      () => weight,
      (itemKey, i): [string, Outcome] => {
        const scored = scores[i]!;
        if (!scored.ok) return [itemKey, scored];
        const prediction = predict(model, members, policy, scored);
        return [itemKey, { ok: true, prediction, embedding: scored.embedding, itemKey }];
      },
    );
    return new Map(outcomes);
  }

  private check(model: ServedModel, item: Item): string | FewloopError {
    try {
      validateItem(model.definition, item, { maxTextLength: this.options.maxTextLength ?? 20_000 });
      return itemKey(item);
    } catch (error) {
      if (error instanceof FewloopError) return error;
      throw error;
    }
  }
}

/** Whether the student's answer is one that the cascade asks the teachers about too. */
function isDoubtful(outcome: Outcome, { definition }: ServedModel): boolean {
  if (!outcome.ok) return false;
  const { route, confidence } = outcome.prediction;
  return route === 'REVIEW' || confidence < definition.routing.accept;
}
