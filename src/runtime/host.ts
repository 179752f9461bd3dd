/**
 * The model host: a child process that holds the ONNX Runtime sessions of one set of graphs.
 * `run()` and `create()` block their thread and a released session keeps its memory, hence a process, which ends with
 * its bundle. It verifies nothing (the registry did) and knows no task: named tensors in, named tensors out.
 *
 *   start ── load ──▶ loaded ── run* ──▶ end, or the parent is gone ──▶ exit
 *
 * Erasable TypeScript and type-only relative imports: Node also runs this file as it stands (tests).
 */
import * as ort from 'onnxruntime-node';
import type { FromHost, HostGraph, HostSettings, HostTensor, ToHost } from './protocol.js';

const sessions = new Map<string, ort.InferenceSession>();

function send(message: FromHost): void {
  // The parent may be gone; then 'disconnect' ends this process.
  if (process.connected) process.send?.(message);
}

function sessionOptions({ threads, device }: HostSettings): ort.InferenceSession.SessionOptions {
  const deviceId = Number(device.split(':')[1] ?? 0);
  return {
    executionProviders: device === 'cpu' ? ['cpu'] : [{ name: 'cuda', deviceId }],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    // A pattern is kept for each shape, and here nearly every batch has a shape of its own.
    enableMemPattern: false,
    logSeverityLevel: 3,
  };
}

async function load(graphs: HostGraph[], settings: HostSettings): Promise<void> {
  try {
    for (const graph of graphs) {
      const session = await open(graph, sessionOptions(settings));
      sessions.set(graph.sha256, session);
      await warmUp(session);
    }
    send({ type: 'loaded' });
  } catch (error) {
    send({ type: 'load-failed', message: (error as Error).message });
  }
}

/** What was packed may have been removed meanwhile; it is optimized already. */
async function open(
  { path, packed }: HostGraph,
  options: ort.InferenceSession.SessionOptions,
): Promise<ort.InferenceSession> {
  if (packed) {
    try {
      return await ort.InferenceSession.create(packed, { ...options, graphOptimizationLevel: 'disabled' });
    } catch {
      // The graph itself is there.
    }
  }
  return ort.InferenceSession.create(path, options);
}

/** The first run allocates and packs weights: it is not to be a request's. */
async function warmUp(session: ort.InferenceSession): Promise<void> {
  const zeros = (dims: number[]) => ({ data: new BigInt64Array(dims.reduce((a, b) => a * b)), dims });
  const row = [1, 8];
  await compute(session, {
    input_ids: zeros(row),
    attention_mask: { data: new BigInt64Array(8).fill(1n), dims: row },
    token_type_ids: zeros(row),
    mask_positions: zeros([1, 1]),
    label_tokens: zeros([1, 1, 1]),
  });
}

/** Inputs that the graph does not take are left out: a classifier's has no masks and no words. */
async function compute(
  session: ort.InferenceSession,
  inputs: Record<string, HostTensor<BigInt64Array>>,
): Promise<Record<string, HostTensor<Float32Array>>> {
  const feeds: Record<string, ort.Tensor> = {};
  for (const [name, { data, dims }] of Object.entries(inputs)) {
    if (session.inputNames.includes(name)) feeds[name] = new ort.Tensor('int64', data, dims);
  }
  const outputs = await session.run(feeds);
  const tensors: Record<string, HostTensor<Float32Array>> = {};
  for (const [name, value] of Object.entries(outputs)) {
    tensors[name] = { data: value.data as Float32Array, dims: [...value.dims] };
  }
  return tensors;
}

async function run(message: Extract<ToHost, { type: 'run' }>): Promise<void> {
  const { job, graph, tensors } = message;
  try {
    const session = sessions.get(graph);
    if (!session) throw new Error(`graph ${graph} is not loaded`);
    send({ type: 'result', job, tensors: await compute(session, tensors) });
  } catch (error) {
    send({ type: 'run-failed', job, message: (error as Error).message });
  }
}

async function handle(message: ToHost): Promise<void> {
  if (message.type === 'load') await load(message.graphs, message.settings);
  else if (message.type === 'run') await run(message);
  else process.disconnect();
}

// One message at a time: `run()` waits for a setImmediate before it blocks, so that a later message would overtake it.
let last: Promise<void> = Promise.resolve();
process.on('message', (message: ToHost) => {
  last = last.then(() => handle(message));
});
// Exit during a run would abort the process; what is queued has nobody to answer to.
process.on('disconnect', () => void last.finally(() => process.exit(0)));
// A terminal signals the whole process group. When to end is the parent's to say: it drains first.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);
