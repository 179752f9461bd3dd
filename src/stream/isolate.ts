/**
 * A batch that fails in the model is tried once more, then halved until each culprit stands alone. Pure but for the call
 * of the model.
 */
import { FewloopError } from '../common/errors.js';

export type Result<P> = P | FewloopError;

/** The item is fine and scoring it failed; BAD_INPUT is the item's own fault and needs no second look. */
export function isFault(result: unknown): result is FewloopError {
  return result instanceof FewloopError && result.code !== 'BAD_INPUT';
}

/** Results in the items' order. A fault among them is that of an item that failed alone, after it failed with others. */
export async function isolate<I, P>(
  items: readonly I[],
  classify: (items: I[]) => Promise<Result<P>[]>,
): Promise<Result<P>[]> {
  const results = await classify([...items]);
  const narrow = async (indices: number[]): Promise<void> => {
    const again = await classify(indices.map((i) => items[i]!));
    indices.forEach((i, k) => (results[i] = again[k]!));
    const failing = indices.filter((i) => isFault(results[i]));
    if (failing.length === 0 || indices.length === 1) return;
    const middle = Math.ceil(failing.length / 2);
    await narrow(failing.slice(0, middle));
    if (middle < failing.length) await narrow(failing.slice(middle));
  };
  const failing = items.map((_, i) => i).filter((i) => isFault(results[i]));
  if (failing.length > 0) await narrow(failing);
  return results;
}
