/**
 * text-embeddings-inference with a classifier's graph, its `ort` backend linked to the ONNX Runtime that this service has
 * too. It batches first come, first served, in one session with all cores, and pads to the longest of a batch.
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PORT, startProgram, type Contestant } from '../contestants.ts';
import { root } from '../texts.ts';

/** Padded tokens and texts of a batch; the last is what it has where nothing is said: its `ort` backend takes 8 texts. */
const SETTINGS: { tokens: number; texts?: number }[] = [
  { tokens: 512, texts: 4 },
  { tokens: 512, texts: 8 },
  { tokens: 16_384 },
];
/** Texts that it takes in a request, and at once: more than any load here has. */
const LIMITS = { '--max-client-batch-size': 64, '--max-concurrent-requests': 1024 };
const RUNTIME = join(root, 'node_modules/onnxruntime-node/bin/napi-v6/linux', process.arch);

export interface Classifier {
  /** Folder of the model that it was trained from. */
  base: string;
  graph: string;
  /** Of its outputs, in order. */
  labels: string[];
  maxLength: number;
}

/** A folder as the Hub's: `config.json` says what the outputs mean, Sentence Transformers' file how long a text may be. */
export function writeModel(folder: string, { base, graph, labels, maxLength }: Classifier): void {
  mkdirSync(folder, { recursive: true });
  cpSync(graph, join(folder, 'model.onnx'));
  cpSync(join(base, 'tokenizer.json'), join(folder, 'tokenizer.json'));
  const write = (file: string, content: object) => writeFileSync(join(folder, file), JSON.stringify(content));
  write('config.json', {
    ...(JSON.parse(readFileSync(join(base, 'config.json'), 'utf8')) as object),
    architectures: ['BertForSequenceClassification'],
    id2label: Object.fromEntries(labels.entries()),
    label2id: Object.fromEntries(labels.map((label, i) => [label, i])),
  });
  write('sentence_bert_config.json', { max_seq_length: maxLength, do_lower_case: false });
}

/** One contestant a setting. `program`: its router. */
export function tei(
  program: string,
  out: string,
  model: string,
  { labels, pairOf }: { labels: string[]; pairOf(text: string): [string, string] },
): Contestant[] {
  return SETTINGS.map(({ tokens, texts }) => ({
    name: `TEI, ${texts ? `${texts} texts, ` : ''}${tokens} tokens`,
    settings: [],
    start: async () => {
      const batch = { '--max-batch-tokens': tokens, ...(texts && { '--max-batch-requests': texts }) };
      const place = { '--model-id': model, '--hostname': '127.0.0.1', '--port': PORT, '--prometheus-port': PORT + 1 };
      const flags = Object.entries({ ...place, ...batch, ...LIMITS, '--dtype': 'float32', '--auto-truncate': true });
      return startProgram(out, 'tei', [program, ...flags.flat().map(String)], { LD_LIBRARY_PATH: RUNTIME, LOG_LEVEL: 'warn' });
    },
    call: (all) => {
      const pairs = all.map(pairOf);
      return { path: '/predict', body: JSON.stringify({ inputs: pairs.length > 1 ? pairs : pairs[0] }), texts: all.length };
    },
    read(body) {
      const answer = JSON.parse(body) as Score[] | Score[][];
      const all = (Array.isArray(answer[0]) ? answer : [answer]) as Score[][];
      return all.map((scores) => labels.map((name) => scores.find(({ label }) => label === name)!.score));
    },
  }));
}

interface Score {
  label: string;
  score: number;
}
