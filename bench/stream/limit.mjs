/**
 * The limit: onnxruntime alone, two sessions of one thread each, on texts that were tokenized before and sorted by
 * length, in the batch size that is best on a sample of them.
 *   node bench/stream/limit.mjs MODEL_FOLDER TEXTS_FILE    (a text a line); prints JSON
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import * as ort from 'onnxruntime-node';
import { tokenize } from './texts.mjs';

const SESSIONS = 2;
const BATCH_SIZES = [4, 8, 16, 32];
const SAMPLE = 1024;

if (isMainThread) await main(process.argv[2], process.argv[3]);
else await work(workerData);

async function main(model, file) {
  const task = JSON.parse(readFileSync(join(import.meta.dirname, '../serving/task.json'), 'utf8'));
  const texts = readFileSync(file, 'utf8').split('\n').filter(Boolean);
  const input = await tokenize(model, task, texts);
  const workers = Array.from({ length: SESSIONS }, () => new Worker(import.meta.filename, { workerData: { model, ...input, rows: [] } }));
  await Promise.all(workers.map(answer));
  const step = Math.max(1, Math.floor(input.rows.length / SAMPLE));
  const sample = input.rows.filter((_, i) => i % step === 0);
  await pass(workers, sample, BATCH_SIZES[0]);
  const trials = [];
  for (const size of BATCH_SIZES) trials.push({ size, ...(await pass(workers, sample, size)) });
  const best = trials.toSorted((a, b) => b.textsPerSecond - a.textsPerSecond)[0].size;
  const found = await pass(workers, input.rows, best);
  process.stdout.write(`${JSON.stringify({ batchSize: best, ...found, trials })}\n`);
  process.exit(0);
}

/** All rows once; each session takes the next batch when it is done with one. */
async function pass(workers, rows, size) {
  const sorted = rows.toSorted((a, b) => a.length - b.length);
  const batches = Array.from({ length: Math.ceil(rows.length / size) }, (_, i) => sorted.slice(i * size, (i + 1) * size));
  // Long ones and short ones mixed: the sessions end together.
  const order = batches.map((_, i) => i).toSorted((a, b) => ((a * 7919) % batches.length) - ((b * 7919) % batches.length));
  const waiting = order.values();
  const [startedMs, cpu] = [performance.now(), process.cpuUsage()];
  await Promise.all(
    workers.map(async (worker) => {
      for (const i of waiting) {
        worker.postMessage(batches[i]);
        await answer(worker);
      }
    }),
  );
  const { user, system } = process.cpuUsage(cpu);
  const seconds = (performance.now() - startedMs) / 1000;
  const textsPerSecond = Number((rows.length / seconds).toFixed(1));
  return { textsPerSecond, cpuMicrosecondsPerText: Number(((user + system) / rows.length).toFixed(1)) };
}

function answer(worker) {
  return new Promise((resolve) => worker.once('message', resolve));
}

async function work({ model, maskPosition, words }) {
  const session = await ort.InferenceSession.create(join(model, 'model.onnx'), {
    executionProviders: ['cpu'],
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
    enableMemPattern: false, // a pattern is kept for each shape, and nearly every batch has its own
  });
  parentPort.on('message', async (rows) => {
    await session.run(feeds(rows, maskPosition, words), ['word_logits']);
    parentPort.postMessage('done');
  });
  parentPort.postMessage('ready');
}

function feeds(rows, maskPosition, words) {
  const [count, length] = [rows.length, Math.max(...rows.map((row) => row.length))];
  const ids = new BigInt64Array(count * length);
  const mask = new BigInt64Array(count * length);
  rows.forEach((row, r) => {
    row.forEach((id, i) => (ids[r * length + i] = BigInt(id)));
    mask.fill(1n, r * length, r * length + row.length);
  });
  const tensor = (data, ...dims) => new ort.Tensor('int64', data, dims);
  return {
    input_ids: tensor(ids, count, length),
    attention_mask: tensor(mask, count, length),
    token_type_ids: tensor(new BigInt64Array(count * length), count, length),
    mask_positions: tensor(new BigInt64Array(count).fill(BigInt(maskPosition)), count, 1),
    label_tokens: tensor(BigInt64Array.from(rows.flatMap(() => words.map(BigInt))), count, words.length, 1),
  };
}
