/**
 * Recent answers, by the model as it is open here, the policy and the item key: a text that comes again costs nothing.
 * A model that is opened anew shares nothing with the one before, so an answer never outlives a swap or a revision.
 */
import { LRUCache } from 'lru-cache';
import type { ServingPolicy } from '../task/types.js';
import type { Answered, ServedModel } from './types.js';

/** What entries take, measured with 10,000 of 2, 17 and 110 labels and 1 or 5 members on Node 24. */
const BYTES_AN_ENTRY = 800;
const BYTES_A_MEMBER = 190;
const BYTES_A_SCORE = 88;

export class RecentAnswers {
  readonly #answers: LRUCache<string, Answered> | undefined;
  readonly #ids = new WeakMap<ServedModel, number>();
  #nextId = 0;

  /** `maxBytes` 0 keeps nothing. */
  constructor(maxBytes: number) {
    if (maxBytes > 0) this.#answers = new LRUCache({ maxSize: maxBytes, sizeCalculation: bytesOf });
  }

  get(model: ServedModel, policy: ServingPolicy, itemKey: string): Answered | undefined {
    return this.#answers?.get(this.#key(model, policy, itemKey));
  }

  keep(model: ServedModel, policy: ServingPolicy, answer: Answered): void {
    this.#answers?.set(this.#key(model, policy, answer.itemKey), answer);
  }

  clear(): void {
    this.#answers?.clear();
  }

  #key(model: ServedModel, policy: ServingPolicy, itemKey: string): string {
    let id = this.#ids.get(model);
    if (id === undefined) this.#ids.set(model, (id = this.#nextId++));
    return `${id} ${policy} ${itemKey}`;
  }
}

function bytesOf({ prediction, embedding }: Answered): number {
  const { distribution, members } = prediction;
  const scores = BYTES_A_SCORE * distribution.length * (1 + members.length);
  return BYTES_AN_ENTRY + BYTES_A_MEMBER * members.length + scores + embedding.byteLength;
}
