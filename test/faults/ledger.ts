/** What was sent against what came out: of Kafka by place, and of PostgreSQL. */
import type { ReadMessage } from '../fixtures/kafka.js';
import { valueOf } from '../fixtures/kafka.js';

export interface Verdict {
  sent: number;
  lost: number;
  duplicated: number;
  /** Of one key, before a record that was sent earlier. */
  outOfOrder: number;
  /** Against the order in which versions became active. */
  wrongVersion: number;
  /** Records that PostgreSQL knows, less those that were sent. */
  history: number;
}

interface Output {
  key: string;
  source: { partition: number; offset: number };
  modelVersion: number;
}

export function compare(sent: ReadMessage[], outputs: ReadMessage[], activations: number[], kept: number): Verdict {
  const read = outputs.map((message): Output => {
    const { source, modelVersion } = valueOf(message) as unknown as Output;
    return { key: String(message.key), source, modelVersion };
  });
  const seen = new Map<string, number>();
  for (const { source } of read) {
    const place = `${source.partition}:${source.offset}`;
    seen.set(place, (seen.get(place) ?? 0) + 1);
  }
  return {
    sent: sent.length,
    lost: sent.filter(({ partition, offset }) => !seen.has(`${partition}:${offset}`)).length,
    duplicated: [...seen.values()].reduce((sum, count) => sum + count - 1, 0),
    outOfOrder: outOfOrder(read),
    wrongVersion: wrongVersions(read, activations),
    history: kept - sent.length,
  };
}

/** A key's outputs are all in one partition of the output, in the order in which they are read. */
function outOfOrder(outputs: Output[]): number {
  const last = new Map<string, number>();
  let count = 0;
  for (const { key, source } of outputs) {
    if (source.offset < (last.get(key) ?? -1)) count += 1;
    last.set(key, Math.max(source.offset, last.get(key) ?? -1));
  }
  return count;
}

/** Along an input partition the versions must come in the order of their activations, none of which is gone back to. */
function wrongVersions(outputs: Output[], activations: number[]): number {
  const partitions = Map.groupBy(outputs, ({ source }) => source.partition);
  let count = 0;
  for (const own of partitions.values()) {
    let at = 0;
    for (const { modelVersion } of own.toSorted((a, b) => a.source.offset - b.source.offset)) {
      const next = activations.indexOf(modelVersion, at);
      if (next < 0) count += 1;
      else at = next;
    }
  }
  return count;
}
