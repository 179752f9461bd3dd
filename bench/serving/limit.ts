/**
 * The limit in one Node process: onnxruntime-node alone on ids that were tokenized before, sorted by length.
 *   node bench/serving/limit.ts MODEL_FOLDER ROWS_FILE --batch 8 --sessions 2 --threads 1 --seconds 10
 * A run blocks its thread, so that each session has one. Whole passes over all rows until `seconds` have passed; prints
 * {"textsPerSecond", "cpuSecondsPer1000", "peakMib"}; with --scores the logits of each row, in order, instead.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import * as ort from 'onnxruntime-node';

interface PetInput {
  rows: number[][];
  maskPosition: number;
  words: number[];
}

/** Of a classifier's graph: rows of two segments, the second behind the first `separator`. */
interface PairInput {
  rows: number[][];
  separator: number;
}

type Input = PetInput | PairInput;

interface Setup {
  model: string;
  file: string;
  batch: number;
  threads: number;
}

type Feeds = Record<string, ort.Tensor>;

if (isMainThread) await main();
else await work(workerData as Setup);

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      batch: { type: 'string', default: '8' },
      sessions: { type: 'string', default: '2' },
      threads: { type: 'string', default: '1' },
      seconds: { type: 'string', default: '10' },
      scores: { type: 'boolean', default: false },
    },
  });
  const [model = '', file = ''] = positionals;
  const setup: Setup = { model, file, batch: Number(values.batch), threads: Number(values.threads) };
  const { rows } = JSON.parse(readFileSync(file, 'utf8')) as Input;
  if (values.scores) return print(await scores(setup));
  const workers = Array.from({ length: Number(values.sessions) }, () => new Worker(import.meta.filename, { workerData: setup }));
  await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))));
  const order = shuffled(Math.ceil(rows.length / setup.batch));
  await onePass(workers, order.slice(0, Math.max(8, order.length / 10))); // warm
  const [startedMs, cpu] = [performance.now(), process.cpuUsage()];
  let scored = 0;
  while (scored === 0 || performance.now() - startedMs < Number(values.seconds) * 1000) {
    await onePass(workers, order);
    scored += rows.length;
  }
  const seconds = (performance.now() - startedMs) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  print({
    textsPerSecond: scored / seconds,
    cpuSecondsPer1000: (user + system) / 1000 / scored,
    peakMib: process.resourceUsage().maxRSS / 1024,
  });
  process.exit(0);
}

/** Each worker takes the next batch when it is done with one. */
async function onePass(workers: Worker[], order: number[]): Promise<void> {
  const waiting = order.values();
  await Promise.all(
    workers.map(async (worker) => {
      for (const batch of waiting) {
        worker.postMessage(batch);
        await new Promise((resolve) => worker.once('message', resolve));
      }
    }),
  );
}

async function work(setup: Setup): Promise<void> {
  const session = await open(setup);
  const input = JSON.parse(readFileSync(setup.file, 'utf8')) as Input;
  const rows = input.rows.toSorted((a, b) => a.length - b.length);
  const count = Math.ceil(rows.length / setup.batch);
  const feeds = Array.from({ length: count }, (_, i) => feedsOf(input, rows.slice(i * setup.batch, (i + 1) * setup.batch)));
  parentPort!.on('message', (batch: number) => {
    void session.run(feeds[batch]!, [outputOf(input)]).then(() => parentPort!.postMessage(batch));
  });
  parentPort!.postMessage('ready');
}

async function scores(setup: Setup): Promise<number[][]> {
  const session = await open(setup);
  const input = JSON.parse(readFileSync(setup.file, 'utf8')) as Input;
  const found: number[][] = [];
  for (const row of input.rows) {
    const output = outputOf(input);
    const answer = await session.run(feedsOf(input, [row]), [output]);
    found.push([...(answer[output]!.data as Float32Array)]);
  }
  return found;
}

function open({ model, threads }: Setup): Promise<ort.InferenceSession> {
  return ort.InferenceSession.create(join(model, 'model.onnx'), {
    executionProviders: ['cpu'],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    enableMemPattern: false, // a pattern is kept for each shape, and nearly every batch has its own
  });
}

function outputOf(input: Input): string {
  return 'words' in input ? 'word_logits' : 'logits';
}

function feedsOf(input: Input, rows: number[][]): Feeds {
  const length = Math.max(...rows.map((row) => row.length));
  const zeros = () => new BigInt64Array(rows.length * length);
  const [ids, mask, types] = [zeros(), zeros(), zeros()];
  rows.forEach((row, r) => {
    row.forEach((id, i) => (ids[r * length + i] = BigInt(id)));
    mask.fill(1n, r * length, r * length + row.length);
    if ('separator' in input) types.fill(1n, r * length + row.indexOf(input.separator) + 1, r * length + row.length);
  });
  const tensor = (data: BigInt64Array, ...dims: number[]) => new ort.Tensor('int64', data, dims);
  const feeds = {
    input_ids: tensor(ids, rows.length, length),
    attention_mask: tensor(mask, rows.length, length),
    token_type_ids: tensor(types, rows.length, length),
  };
  if (!('words' in input)) return feeds;
  const labels = BigInt64Array.from(rows.flatMap(() => input.words.map(BigInt)));
  return {
    ...feeds,
    mask_positions: tensor(new BigInt64Array(rows.length).fill(BigInt(input.maskPosition)), rows.length, 1),
    label_tokens: tensor(labels, rows.length, input.words.length, 1),
  };
}

/** Numbers below `count` in an order that mixes long batches with short: workers then end together. */
function shuffled(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i).toSorted((a, b) => ((a * 7919) % count) - ((b * 7919) % count));
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
