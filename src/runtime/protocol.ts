/**
 * What the service and a model host say to each other, over the child process' channel (advanced serialization).
 * Batches and results are named tensors, so that another kind of graph needs no other protocol.
 * Both sides import this file; it has types and pure functions only.
 */
import type { HostBatch, HostResult } from '../inference/types.js';

export interface HostGraph {
  /** What batches call it on the wire: the digest, which does not depend on the bundle that names it. */
  sha256: string;
  path: string;
  /** The same as ONNX Runtime has made it ready for this machine (packed-graphs.ts), where it has. */
  packed?: string;
}

export interface HostTensor<T extends BigInt64Array | Float32Array = BigInt64Array | Float32Array> {
  data: T;
  dims: number[];
}

export interface HostSettings {
  threads: number;
  /** `cpu` or `cuda:N`; of a group of hosts also several, `cuda:N,M`. */
  device: string;
  /** On processor time that nobody else wants. */
  spare?: boolean;
}

export type ToHost =
  | { type: 'load'; graphs: HostGraph[]; settings: HostSettings }
  | { type: 'run'; job: number; graph: string; tensors: Record<string, HostTensor<BigInt64Array>> }
  | { type: 'end' };

export type FromHost =
  | { type: 'loaded' }
  | { type: 'load-failed'; message: string }
  | { type: 'result'; job: number; tensors: Record<string, HostTensor<Float32Array>> }
  | { type: 'run-failed'; job: number; message: string };

export function batchTensors(batch: HostBatch): Record<string, HostTensor<BigInt64Array>> {
  const { rows, length, masks, words } = batch;
  const tensors = {
    input_ids: { data: batch.inputIds, dims: [rows, length] },
    attention_mask: { data: batch.attentionMask, dims: [rows, length] },
    token_type_ids: { data: batch.tokenTypeIds, dims: [rows, length] },
  };
  if (words === 0) return tensors;
  return {
    ...tensors,
    mask_positions: { data: batch.maskPositions, dims: [rows, masks] },
    label_tokens: { data: batch.labelTokens, dims: [rows, words, masks] },
  };
}

export function resultOf(tensors: Record<string, HostTensor<Float32Array>>): HostResult {
  const { pooled_embedding } = tensors;
  const logits = tensors['word_logits'] ?? tensors['logits'];
  if (!logits || !pooled_embedding) throw new Error(`the graph answered ${Object.keys(tensors).join(', ')}`);
  return { logits: logits.data, embeddings: pooled_embedding.data };
}
