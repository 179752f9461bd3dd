/**
 * What texts that come again save: within a request, where one row serves them all, and later, where the answer is kept
 * (FEWLOOP_CACHE_MB). Shop reviews to a zero-shot task of two templates on base-zh, 64 a request, two requests at once, by
 * turns; no training. Prints JSON: for each turn its seconds, processor seconds, and tokens that models were given.
 *   node bench/savings/repeats.ts DATA_FOLDER [--texts 640] [--rounds 3]
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { query, startService } from '../loop/service.ts';
import { cpuSeconds, tree } from '../serving/tree.ts';
import { askAll, PER_REQUEST } from './requests.ts';
import { reviews } from './reviews.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { texts: { type: 'string', default: '640' }, rounds: { type: 'string', default: '3' } },
});
const [data] = positionals;
if (!data) throw new Error('usage: repeats.ts DATA_FOLDER');

const TASK = {
  name: 'repeats',
  kind: 'single-label',
  labels: [
    { name: '1', words: ['好', '赞'] },
    { name: '0', words: ['差', '糟'] },
  ],
  templates: ['很{mask}。{text}', '{text} 总之很{mask}。'],
  maxLength: 128,
};

const folder = mkdtempSync(join(tmpdir(), 'fewloop-repeats-'));
chmodSync(folder, 0o755); // PostgreSQL may run as another user, who walks through it
const service = await startService(folder, { FEWLOOP_LOG_LEVEL: 'warn' });

/** That model hosts were given since the start, padding included. */
async function tokensAsked(): Promise<number> {
  const metrics = await (await fetch(new URL('/metrics', service.url))).text();
  return [...metrics.matchAll(/^fewloop_batch_tokens_sum\S* (\S+)$/gmu)].reduce((sum, [, tokens]) => sum + Number(tokens), 0);
}

async function send(texts: string[]): Promise<void> {
  const text = 'query ($inputs: [TextInput!]!, $options: ClassifyOptions) { classify(task: "repeats", inputs: $inputs, options: $options) { label } }';
  await askAll(texts, async (inputs) => (await query<{ classify: object[] }>(service.url, text, { inputs, options: { deadlineMs: 60_000 } })).classify);
}

try {
  await query(service.url, 'mutation ($definition: String!) { applyTask(definition: $definition) { name } }', { definition: JSON.stringify(TASK) });
  const many = Number(values.texts);
  const rounds = Number(values.rounds);
  const fresh = reviews(data)
    .map(({ text }) => text)
    .values();
  const take = (count: number) => Array.from({ length: count }, () => fresh.next().value!);
  await send(take(2 * PER_REQUEST));
  const measured: Record<string, { texts: number; seconds: number[]; processor: number[]; tokens: number[] }> = {};
  const measure = async (name: string, texts: string[]) => {
    const [startedMs, before, asked] = [performance.now(), cpuSeconds(tree(service.pid)), await tokensAsked()];
    await send(texts);
    const found = (measured[name] ??= { texts: texts.length, seconds: [], processor: [], tokens: [] });
    found.seconds.push((performance.now() - startedMs) / 1000);
    found.processor.push(cpuSeconds(tree(service.pid)) - before);
    found.tokens.push((await tokensAsked()) - asked);
  };
  for (let round = 0; round < rounds; round++) {
    const all = take(many);
    await measure('each text once', all);
    await measure('the same texts again', all);
    // Of each request's texts every other one is the one before it.
    const twice = take(many / 2).flatMap((text) => [text, text]);
    await measure('each text twice in its request', twice);
  }
  process.stdout.write(`${JSON.stringify({ machine: { cpu: cpus()[0]!.model, cores: cpus().length, load: loadavg() }, measured }, null, 1)}\n`);
} finally {
  await service.stop();
  rmSync(folder, { recursive: true, force: true });
}
