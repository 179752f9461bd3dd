/**
 * What an ONNX file would make ONNX Runtime open besides itself. Tensors may name files of their own ("external data"),
 * by any path; our exports never do, so that a graph that does is refused before it is opened. The file's messages are
 * walked by their field numbers (onnx.proto3), as far as tensors can be in them.
 */
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { LRUCache } from 'lru-cache';
import { readFile } from 'node:fs/promises';

/** Message → field number → the message that the field holds. */
const CONTAINERS: Record<string, Record<number, string>> = {
  model: { 7: 'graph', 20: 'training', 25: 'function' },
  training: { 1: 'graph', 2: 'graph' },
  graph: { 1: 'node', 5: 'tensor', 15: 'sparse' },
  function: { 7: 'node', 11: 'attribute' },
  node: { 5: 'attribute' },
  attribute: { 5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 22: 'sparse', 23: 'sparse' },
  sparse: { 1: 'tensor', 2: 'tensor' },
};
const MODEL_GRAPH = 7;
const TENSOR_EXTERNAL_DATA = 13;
const TENSOR_DATA_LOCATION = 14;
/** Graphs within attributes of nodes of graphs; deeper is no model. */
const MAX_DEPTH = 100;

/** SHA-256 of files that were found to be whole in themselves. */
const known = new LRUCache<string, true>({ max: 10_000 });

/** Throws an Error that says why the file, whose digest is known to be `sha256`, is none that may be opened. */
export async function refuseExternalData(path: string, sha256: string): Promise<void> {
  // The runtime takes other files, by their names, for a format of its own.
  if (!path.endsWith('.onnx')) throw new Error('its name does not end in .onnx');
  if (known.has(sha256)) return;
  let graphs: number;
  try {
    graphs = walk(await readFile(path), 'model', 0);
  } catch (cause) {
    if (cause instanceof ExternalData) throw cause;
    throw new Error('it is no ONNX model', { cause });
  }
  if (graphs === 0) throw new Error('it is no ONNX model');
  known.set(sha256, true);
}

class ExternalData extends Error {}

/** How many graphs the message holds itself. */
function walk(bytes: Uint8Array, message: string, depth: number): number {
  if (depth > MAX_DEPTH) throw new Error('nested too deeply');
  const reader = new BinaryReader(bytes);
  let graphs = 0;
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (message === 'tensor' && (field === TENSOR_EXTERNAL_DATA || field === TENSOR_DATA_LOCATION)) {
      if (field === TENSOR_EXTERNAL_DATA || reader.int32() !== 0) {
        throw new ExternalData('it takes weights from another file (external data)');
      }
      continue;
    }
    const inner = CONTAINERS[message]?.[field];
    if (inner === undefined) {
      reader.skip(wireType, field);
      continue;
    }
    if (wireType !== WireType.LengthDelimited) throw new Error(`field ${field} of a ${message} is no message`);
    walk(reader.bytes(), inner, depth + 1);
    if (message === 'model' && field === MODEL_GRAPH) graphs += 1;
  }
  return graphs;
}
