/** A verified bundle, opened: its graphs in model hosts, its tokenizer loaded. Whoever opens it releases it. */
import type { ServedModel } from '../inference/types.js';
import type { HostPool } from '../runtime/host-pool.js';
import { invalid, type Bundle } from './bundle.js';
import { openTokenizer } from './tokenizer.js';

export interface OpenModel {
  model: ServedModel;
  /** Processes that hold its graphs. */
  pids(): number[];
  /** Drains what it was given, then lets its hosts go. */
  release(): Promise<void>;
}

export async function openBundle(
  { manifest, members, tokenizerJson, graphs }: Pick<Bundle, 'manifest' | 'members' | 'tokenizerJson' | 'graphs'>,
  hostPool: HostPool,
): Promise<OpenModel> {
  let tokenizer;
  try {
    tokenizer = openTokenizer(tokenizerJson);
  } catch (cause) {
    throw invalid(`${manifest.tokenizer.file} is no tokenizer`, cause);
  }
  const lease = await hostPool.open(graphs);
  const { task, version, taskRevision, definition, policies, thresholds = {} } = manifest;
  return {
    model: { task, version, taskRevision, definition, members, policies, thresholds, tokenizer, runner: lease },
    pids: () => lease.pids(),
    release: () => lease.release(),
  };
}
