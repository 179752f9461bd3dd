/** What a GPU prepares for each shape of a batch, it prepares before the first request. */
import { Logger } from '@nestjs/common';
import { fixedShapes } from '../inference/shapes.js';
import type { GraphRunner } from '../inference/types.js';
import { blankBatch } from './measurements.js';

const log = new Logger('WarmShapes');

export interface Warming {
  graphs: string[];
  /** Processes of the runner: idle ones take a batch each. */
  hosts: number;
  maxBatchTokens: number;
  /** Tokens of a row. */
  maxLength: number;
}

/** Every graph with every shape that batches will have, on every host. */
export async function warmShapes(
  runner: GraphRunner,
  { graphs, hosts, maxBatchTokens, maxLength }: Warming,
): Promise<void> {
  const shapes = fixedShapes(maxBatchTokens, maxLength);
  const startedMs = performance.now();
  for (const { rows, length } of shapes) {
    for (const graph of graphs) {
      const batch = blankBatch(graph, rows, length);
      await Promise.all(Array.from({ length: hosts }, () => runner.run(batch)));
    }
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  log.log(`${shapes.length} shapes of batches up to ${maxBatchTokens} tokens are warm after ${seconds} s`);
}
