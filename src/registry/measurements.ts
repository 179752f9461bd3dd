/** What measurements of this machine share: the rows that they run, and the file of the data folder that keeps them. */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { HostBatch } from '../inference/types.js';

/** About a review or a title with its template. */
export const ROW_TOKENS = 32;

/** By key, one JSON object; what a measurement holds for (machine.ts) is part of its key. */
export class KeptMeasurements<T> {
  constructor(private readonly file: string) {}

  /** Undefined where it is to be measured: what cannot be read is measured again. */
  async of(key: string): Promise<T | undefined> {
    return (await this.#read())[key];
  }

  async keep(key: string, measured: T): Promise<void> {
    const all = { ...(await this.#read()), [key]: measured };
    await mkdir(dirname(this.file), { recursive: true });
    // Not by process id: containers that share the folder may have the same.
    const partial = `${this.file}.${randomUUID()}.partial`;
    await writeFile(partial, JSON.stringify(all, null, 2));
    await rename(partial, this.file);
  }

  async #read(): Promise<Record<string, T>> {
    try {
      return JSON.parse(await readFile(this.file, 'utf8')) as Record<string, T>;
    } catch {
      return {};
    }
  }
}

/** Rows whose ids do not matter. Graphs that take no masks and no words are given none of these by their host. */
export function blankBatch(
  graph: string,
  rows: number,
  length = ROW_TOKENS,
  { masks, words }: Pick<HostBatch, 'masks' | 'words'> = { masks: 1, words: 2 },
): HostBatch {
  return {
    graph,
    rows,
    length,
    masks,
    words,
    inputIds: new BigInt64Array(rows * length).fill(1n),
    attentionMask: new BigInt64Array(rows * length).fill(1n),
    tokenTypeIds: new BigInt64Array(rows * length),
    maskPositions: new BigInt64Array(rows * masks),
    labelTokens: new BigInt64Array(rows * words * masks),
  };
}
