/** How both benches ask: 64 texts a request, two requests at once. */
import { chunks } from '../loop/service.ts';

export const PER_REQUEST = 64;
const REQUESTS_AT_ONCE = 2;

/** What `ask` answers to all texts, in order. `onDone`: requests that have been answered, and how many there are. */
export async function askAll<T>(
  texts: string[],
  ask: (inputs: { text: string }[]) => Promise<T[]>,
  onDone: (done: number, all: number) => void = () => undefined,
): Promise<T[]> {
  const parts: string[][] = [];
  for await (const part of chunks(texts, PER_REQUEST)) parts.push(part);
  const answers: T[][] = [];
  let next = 0;
  const one = async () => {
    for (let i = next++; i < parts.length; i = next++) {
      answers[i] = await ask(parts[i]!.map((text) => ({ text })));
      onDone(i + 1, parts.length);
    }
  };
  await Promise.all(Array.from({ length: REQUESTS_AT_ONCE }, one));
  return answers.flat();
}
