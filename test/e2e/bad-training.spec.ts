/**
 * What cannot be trained on, through the service: the linter refuses what a task file says wrong, and what the trainer
 * alone can see ends the run, with the trainer's own words on it.
 */
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TINY_MODEL } from '../fixtures/bundle.js';
import { runCli } from '../fixtures/cli.js';
import {
  makeDataDir,
  startServiceProcess,
  TRAINED_TASK as TASK,
  type ServiceProcess,
} from '../fixtures/service-process.js';

const APPLY = 'mutation ($definition: String!) { applyTask(definition: $definition) { name } }';

let dataDir: string;
let service: ServiceProcess;

beforeAll(async () => {
  dataDir = makeDataDir();
  const base = join(dataDir, 'headless');
  cpSync(TINY_MODEL, base, { recursive: true });
  // The head's weights under a name that nobody asks for: the graph answers as before, the trainer misses them.
  const weights = join(base, 'model.safetensors');
  const renamed = readFileSync(weights).toString('latin1').replaceAll('"cls.', '"xls.');
  writeFileSync(weights, Buffer.from(renamed, 'latin1'));
  service = await startServiceProcess(dataDir, base);
  await service.request(APPLY, { definition: TASK });
});

afterAll(async () => {
  await service?.end();
  rmSync(dataDir, { recursive: true, force: true });
});

it.each([
  ['two labels with the same words', TASK.replace('[差]', '[好]'), 'labels.1.words.0'],
  ['more tokens than the model takes', TASK.replace('maxLength: 32', 'maxLength: 4000'), 'maxLength'],
])('%s: no task', async (_, definition, field) => {
  const { errors } = await service.ask(APPLY, { definition });
  expect(errors?.[0]).toMatchObject({ extensions: { code: 'BAD_INPUT', field } });
});

it.each([
  ['labels of one kind alone', ['positive'], 'BAD_INPUT: training needs labelled rows of at least two labels'],
  ['a base model without a head', ['positive', 'negative'], 'has no masked-language-model head'],
])('%s: a run that failed, and says why', async (_, labels, reason) => {
  const rows = Array.from({ length: 8 }, (_row, i) => ({ text: `第${i}条`, label: labels[i % labels.length] }));
  const file = join(dataDir, 'labelled.jsonl');
  writeFileSync(file, rows.map((row) => JSON.stringify(row)).join('\n'));
  const imported = await runCli(service.url, ['import', 'reviews', file, '--split', 'train']);
  expect(imported.code).toBe(0);
  const waited = await runCli(service.url, ['retrain', 'reviews', '--wait']);
  expect(waited.code).toBe(1);
  expect(waited.out).toContain(reason);
  const { out } = await runCli(service.url, ['runs', 'reviews', '--json']);
  const [run] = JSON.parse(out) as { state: string; error: string; estimateSeconds: number | null }[];
  expect(run).toMatchObject({ state: 'FAILED', error: expect.stringContaining(reason), estimateSeconds: null });
});
