/** What a model host takes of the machine's memory: measured, and before it runs estimated by its graphs' files. */
import { statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { HostGraph } from './protocol.js';

/** Node and ONNX Runtime: 36 to 56 MB measured without a graph; what is over is room for batches. */
const EMPTY_HOST_BYTES = 90 * 2 ** 20;
/** Weights kept in fp16 are computed in fp32: 123 MB measured for the base model's file of 48, before any batch. */
const BYTES_A_FILE_BYTE = 3;

/** Bytes of the processes, shared pages by their share; undefined where the system does not say. */
export async function measuredBytes(pids: number[]): Promise<number | undefined> {
  let kibibytes = 0;
  for (const pid of pids) {
    try {
      const [, size] = /^Pss:\s+(\d+) kB/mu.exec(await readFile(`/proc/${pid}/smaps_rollup`, 'utf8')) ?? [];
      if (size === undefined) return undefined;
      kibibytes += Number(size);
    } catch {
      return undefined;
    }
  }
  return kibibytes * 1024;
}

/** Of `hosts` processes with these graphs; `shared`: which have one copy of their weights. */
export function estimatedBytes(graphs: HostGraph[], hosts: number, shared = false): number {
  const files = graphs.reduce((sum, { path }) => sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0), 0);
  return hosts * EMPTY_HOST_BYTES + (shared ? 1 : hosts) * BYTES_A_FILE_BYTE * files;
}
