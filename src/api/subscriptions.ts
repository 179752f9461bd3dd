/** Observables as GraphQL's subscriptions ask for them. */
import type { Observable } from 'rxjs';

/** A reader that falls so far behind loses the oldest. */
const MAX_WAITING = 1000;

/** Values as the subscription field's payloads. It listens from now on, not from the first `next`. */
export function payloads<T>(field: string, source: Observable<T>): AsyncIterableIterator<Record<string, T>> {
  const waiting: T[] = [];
  let wake: (() => void) | undefined;
  const state: { ended: boolean; failure?: Error } = { ended: false };
  const notify = () => {
    wake?.();
    wake = undefined;
  };
  const end = () => {
    state.ended = true;
    notify();
  };
  const subscription = source.subscribe({
    next: (value) => {
      waiting.push(value);
      if (waiting.length > MAX_WAITING) waiting.shift();
      notify();
    },
    error: (error: Error) => {
      state.failure = error;
      end();
    },
    complete: end,
  });
  const stop = async () => {
    subscription.unsubscribe();
    waiting.length = 0;
    end();
    return { done: true as const, value: undefined };
  };
  return {
    async next() {
      while (waiting.length === 0 && !state.ended) await new Promise<void>((resolve) => (wake = resolve));
      if (waiting.length > 0) return { done: false, value: { [field]: waiting.shift()! } };
      if (state.failure) throw state.failure;
      return { done: true, value: undefined };
    },
    return: stop,
    async throw(error: unknown) {
      await stop();
      throw error;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
