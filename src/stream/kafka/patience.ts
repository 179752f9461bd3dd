/**
 * How long records of a task that has no model yet are waited for, on a topic that other tasks read too: as long as they
 * wait, so does everything behind them. By the clock of `performance.now`.
 */
import { FewloopError } from '../../common/errors.js';

export class Patience {
  /** Task → when its model was first missed. */
  readonly #since = new Map<string, number>();

  /** `ms` of 0: for ever. */
  constructor(private readonly ms: number) {}

  /** Takes note of a failure to score. */
  failed(task: string, error: unknown): void {
    if (isWithoutModel(error) && !this.#since.has(task)) this.#since.set(task, performance.now());
  }

  scored(task: string): void {
    this.#since.delete(task);
  }

  /** Whether its records go to the dead-letter topic now. */
  isOver(task: string): boolean {
    const since = this.#since.get(task);
    return this.ms > 0 && since !== undefined && performance.now() - since >= this.ms;
  }
}

/** Whether the task has no model anywhere. A version that cannot be opened here is this machine's trouble. */
export function isWithoutModel(error: unknown): error is FewloopError {
  return error instanceof FewloopError && error.code === 'NO_ACTIVE_MODEL' && error.cause === undefined;
}
