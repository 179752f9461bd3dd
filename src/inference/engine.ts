/**
 * Inference as the rest of the service calls it. One engine a process: all tasks share its queue.
 * Invariants: outcomes are in the order of the items; an item that fails does not fail its neighbours; identical items
 * of one request are scored once; a request is answered by the one model it was given.
 */
import { badInput, FewloopError } from '../common/errors.js';
import { validateItem } from '../task/item.js';
import { itemKey } from '../task/keys.js';
import type { Item, ServingPolicy } from '../task/types.js';
import { BatchQueue, deadlineExceeded, type QueueLimits } from './infer.js';
import { predict, scoreMembers, type ItemScores } from './pipeline.js';
import type { ClassifyRequest, Member, Prediction, ServedModel } from './types.js';

export type Outcome =
  { ok: true; prediction: Prediction; embedding: Float32Array; itemKey: string } | { ok: false; error: FewloopError };

export interface EngineOptions extends QueueLimits {
  /** UTF-16 units of a text; longer ones are BAD_INPUT. Default 20,000. */
  maxTextLength?: number;
}

export class InferenceEngine {
  private readonly queue: BatchQueue;

  constructor(private readonly options: EngineOptions) {
    this.queue = new BatchQueue(options);
  }

  /** Throws BAD_INPUT on `policy`, and OVERLOADED; every other failure is an item's own. */
  async classify(model: ServedModel, request: ClassifyRequest): Promise<Outcome[]> {
    const { policy, members } = membersOf(model, request.policy);
    const keys = request.items.map((item) => this.check(model, item));
    const distinct = new Map<string, Item>();
    keys.forEach((key, i) => {
      if (typeof key === 'string') distinct.set(key, request.items[i]!);
    });
    // Before rendering and tokenizing: late work is dropped before it costs anything.
    const late = request.deadlineAt !== undefined && request.deadlineAt <= Date.now();
    const items = [...distinct.values()];
    const scores = late
      ? items.map((): ItemScores => ({ ok: false, error: deadlineExceeded() }))
      : await scoreMembers(model, members, items, this.queue, request);
    const outcomes = new Map(
      [...distinct.keys()].map((key, i): [string, Outcome] => {
        const scored = scores[i]!;
        if (!scored.ok) return [key, scored];
        const prediction = predict(model, members, policy, scored);
        return [key, { ok: true, prediction, embedding: scored.embedding, itemKey: key }];
      }),
    );
    return keys.map((key) => (typeof key === 'string' ? outcomes.get(key)! : { ok: false, error: key }));
  }

  /**
   * What every member (teachers and student) says of each item before offsets: for prior matching and golden texts.
   * Takes empty texts too, which contextual calibration asks for.
   */
  rawScores(model: ServedModel, items: Item[]): Promise<ItemScores[]> {
    return scoreMembers(model, model.members, items, this.queue, { priority: 'bulk' });
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

/**
 * The members that a policy asks. One that is asked for must exist; the task's own falls back to the ensemble, because
 * a version without training has no student.
 */
function membersOf(model: ServedModel, asked?: ServingPolicy): { policy: ServingPolicy; members: Member[] } {
  const teachers = model.members.filter((member) => member.role === 'teacher');
  const students = model.members.filter((member) => member.role === 'student');
  const wanted =
    asked ?? (model.definition.serving.policy === 'student' && students.length > 0 ? 'student' : 'ensemble');
  if (wanted === 'cascade') throw badInput('policy', 'CASCADE is not supported yet');
  const members = wanted === 'student' ? students : teachers;
  if (members.length > 0) return { policy: wanted, members };
  if (asked === undefined && students.length > 0) return { policy: 'student', members: students };
  throw badInput('policy', `version ${model.version} of ${model.task} has no ${wanted}`);
}
