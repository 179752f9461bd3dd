/**
 * The weights that ONNX Runtime packs into a file lie there one behind the other. Its kernels load packed weights as
 * whole vectors, which must begin at multiples of their size (AVX-512: 64 bytes), or the process ends: a tensor of odd
 * length before them is enough. Here each is moved to where it may begin, and the graph beside (onnx.proto3, by field
 * numbers) told so.
 */
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { open, readFile, rename, writeFile, type FileHandle } from 'node:fs/promises';

/** Of memory that ONNX Runtime itself allocates on a CPU, at least. */
export const ALIGNMENT = 64;
const COPY_BYTES = 2 ** 20;
const PAGE = 4096;
const MODEL_GRAPH = 7;
const GRAPH_INITIALIZER = 5;
const TENSOR_EXTERNAL_DATA = 13;
const ENTRY_KEY = 1;
const ENTRY_VALUE = 2;
/** `key|offset;length;checksum|…` of what a kernel has packed. */
const PACKED = /^prepacked_/u;

interface Move {
  from: number;
  to: number;
  length: number;
}

/** Rewrites both files. Throws, before it changes either, where they are not as ONNX Runtime writes them. */
export async function alignWeights(model: string, weights: string): Promise<void> {
  const moves: Move[] = [];
  const place = (from: number, length: number): number => {
    const { to, length: before } = moves.at(-1) ?? { to: 0, length: 0 };
    const next = Math.ceil((to + before) / ALIGNMENT) * ALIGNMENT;
    moves.push({ from, to: next, length });
    return next;
  };
  const moved = rewritten(await readFile(model), [MODEL_GRAPH, GRAPH_INITIALIZER], (tensor) =>
    movedTensor(tensor, place),
  );
  const source = await open(weights);
  try {
    await refuseOthers(source, moves);
    const target = await open(`${weights}.aligned`, 'w');
    try {
      for (const move of moves) await copy(source, target, move);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
  await rename(`${weights}.aligned`, weights);
  await writeFile(model, moved);
}

/** Where each tensor and each packed part of a graph begins. */
export function offsetsOf(model: Uint8Array): number[] {
  const found: number[] = [];
  rewritten(model, [MODEL_GRAPH, GRAPH_INITIALIZER], (tensor) =>
    movedTensor(tensor, (from) => {
      found.push(from);
      return from;
    }),
  );
  return found;
}

type Place = (offset: number, length: number) => number;

function movedTensor(tensor: Uint8Array, place: Place): Uint8Array {
  const entries = new Map<string, string>();
  rewritten(tensor, [TENSOR_EXTERNAL_DATA], (entry) => {
    entries.set(textOf(entry, ENTRY_KEY), textOf(entry, ENTRY_VALUE));
    return entry;
  });
  if (entries.size === 0) return tensor;
  const values = new Map(entries);
  values.set('offset', String(place(bytesOf(entries.get('offset')), bytesOf(entries.get('length')))));
  for (const [key, value] of entries) if (PACKED.test(key)) values.set(key, movedParts(value, place));
  return rewritten(tensor, [TENSOR_EXTERNAL_DATA], (entry) =>
    rewritten(entry, [ENTRY_VALUE], () => new TextEncoder().encode(values.get(textOf(entry, ENTRY_KEY)))),
  );
}

function movedParts(value: string, place: Place): string {
  const [key, ...parts] = value.split('|');
  const moved = parts.map((part) => {
    const [offset, length, ...rest] = part.split(';');
    return [place(bytesOf(offset), bytesOf(length)), length, ...rest].join(';');
  });
  return [key, ...moved].join('|');
}

function bytesOf(text: string | undefined): number {
  if (!/^\d+$/u.test(text ?? '')) throw new Error(`${text} is no number of bytes`);
  return Number(text);
}

/** The message with `change` of all that lies at this path of field numbers, and all else as it is. */
function rewritten(message: Uint8Array, path: number[], change: (bytes: Uint8Array) => Uint8Array): Uint8Array {
  const [wanted, ...inner] = path;
  const [reader, writer] = [new BinaryReader(message), new BinaryWriter()];
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    writer.tag(field, wireType);
    if (field !== wanted || wireType !== WireType.LengthDelimited) {
      writer.raw(reader.skip(wireType, field));
      continue;
    }
    const bytes = reader.bytes();
    writer.bytes(inner.length > 0 ? rewritten(bytes, inner, change) : change(bytes));
  }
  return writer.finish();
}

/** Of a message with text in that field; empty where it has none. */
function textOf(message: Uint8Array, wanted: number): string {
  let text = '';
  rewritten(message, [wanted], (bytes) => {
    text = new TextDecoder().decode(bytes);
    return bytes;
  });
  return text;
}

/** Between what the graph names there is nothing but what ONNX Runtime puts before large tensors: zeros up to a page. */
async function refuseOthers(source: FileHandle, moves: Move[]): Promise<void> {
  const { size } = await source.stat();
  let end = 0;
  for (const { from, length } of [...moves.toSorted((a, b) => a.from - b.from), { from: size, length: 0 }]) {
    const between = Buffer.alloc(Math.max(0, Math.min(from - end, PAGE)));
    await source.read(between, 0, between.length, end);
    const isPadding = from - end >= 0 && from - end < PAGE && between.every((byte) => byte === 0);
    if (!isPadding) throw new Error(`its graph does not say what the packed weights are at ${end} to ${from}`);
    end = from + length;
  }
}

async function copy(source: FileHandle, target: FileHandle, { from, to, length }: Move): Promise<void> {
  const buffer = Buffer.allocUnsafe(Math.min(COPY_BYTES, length));
  for (let done = 0; done < length;) {
    const { bytesRead } = await source.read(buffer, 0, Math.min(buffer.length, length - done), from + done);
    if (bytesRead === 0) throw new Error('weights end before their time');
    await target.write(buffer, 0, bytesRead, to + done);
    done += bytesRead;
  }
}
