/**
 * Recent answers, by the model as it is open here, the policy and the item key: a text that comes again costs nothing.
 * A model that is opened anew shares nothing with the one before, so an answer never outlives a swap or a revision.
 */
import { LRUCache } from 'lru-cache';
import type { ServingPolicy } from '../task/types.js';
import type { Answered, ServedModel } from './types.js';

/** What an entry takes beside what grows with it: keys, objects, strings. Measured with 10,000 entries. */
const BYTES_AN_ENTRY = 1000;
const BYTES_A_SCORE = 40;

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

  #key(model: ServedModel, policy: ServingPolicy, itemKey: string): string {
    let id = this.#ids.get(model);
    if (id === undefined) this.#ids.set(model, (id = this.#nextId++));
    return `${id} ${policy} ${itemKey}`;
  }
}

function bytesOf({ prediction, embedding }: Answered): number {
  const scores = prediction.distribution.length * (1 + prediction.members.length);
  return BYTES_AN_ENTRY + BYTES_A_SCORE * scores + embedding.byteLength;
}
