/**
 * docs/operations/backup.md, executed: its `sh` blocks in order, in one shell, beside a running service with a trained
 * version. Between them it is looked whether what they say is so.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { freePort } from '../../scripts/kafka/broker.mjs';
import { TINY_MODEL } from '../fixtures/bundle.js';
import { startCli } from '../fixtures/cli.js';
import { graphqlClient, type GraphqlClient } from '../fixtures/graphql.js';
import { descendants, isAlive, until } from '../fixtures/processes.js';
import {
  makeDataDir,
  startServiceProcess,
  TRAINED_TASK as TASK,
  trainerPython,
  type ServiceProcess,
} from '../fixtures/service-process.js';

const ROOT = resolve(import.meta.dirname, '../..');
const PAGE = readFileSync(resolve(ROOT, 'docs/operations/backup.md'), 'utf8');
const BLOCKS = [...PAGE.matchAll(/^```sh\n(.*?)^```$/gmsu)].map(([, block = '']) => block);
const PORT = '3100';
const BLOCK_MS = 120_000;

const EXAMPLES = ['手机', '衣服', '水果', '酒店', '书', '电脑', '牛奶', '外卖'].flatMap((name) => [
  { text: `${name}很好，满意，下次还买`, labels: ['positive'], split: 'TRAIN' },
  { text: `${name}太差了，失望，再也不买`, labels: ['negative'], split: 'TRAIN' },
]);
const TEXTS = ['味道很好，下次还来', '太差了，等了一个小时', '一般吧', '房间干净，服务热情'].map((text) => ({ text }));
const FORGOTTEN = '一般吧';
const RUNS = '{ task(name: "reviews") { runs { state error } promotions { id } stream { pending scored } } }';
const CLASSIFY = `query ($inputs: [TextInput!]!) {
  classify(task: "reviews", inputs: $inputs) { modelVersion label confidence }
}`;
const STATE = `{ task(name: "reviews") { revision activeVersion { version } examples { train dev test } runs { state produced { version } } }
  reviewQueue(task: "reviews") { totalCount edges { node { text } } }
  verifyLedger { entries brokenAt lastHash } }`;

let folder: string;
let dataDir: string;
let restored: string;
let backup: string;
let ledger: string;
let service: ServiceProcess;
let shell: ChildProcess;
let port: number;
let output = '';
let before: Awaited<ReturnType<typeof all>>;

interface State {
  reviewQueue: { totalCount: number; edges: { node: { text: string } }[] };
  verifyLedger: { entries: number; lastHash: string };
}

/** Answers, and what is there; the order of questions may be another once the pool was scored by the new version. */
async function all(client: GraphqlClient) {
  const { reviewQueue, ...state } = await client.request<State>(STATE);
  const questions = reviewQueue.edges.map(({ node }) => node.text).sort();
  return { ...(await client.request<object>(CLASSIFY, { inputs: TEXTS })), ...state, questions };
}

/** Resolves to what the block printed; throws that where a command of it failed. */
async function execute(block: string): Promise<string> {
  const from = output.length;
  shell.stdin!.write(`{\n${block.replaceAll(PORT, String(port))}} </dev/null\necho "<done>"\n`);
  await until(() => output.includes('<done>\n', from) || shell.exitCode !== null, BLOCK_MS);
  const printed = output.slice(from);
  if (!printed.includes('<done>\n')) throw new Error(`${block}\n${printed}`);
  return printed.replace('<done>\n', '');
}

const env = {
  FEWLOOP_BASE_MODEL: TINY_MODEL,
  FEWLOOP_HOSTS: '1',
  FEWLOOP_LOG_LEVEL: 'warn',
  FEWLOOP_PRECISION: 'fp32',
};

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-backups-'));
  [dataDir, restored, backup] = [makeDataDir(), makeDataDir(), join(folder, 'monday')];
  ledger = join(folder, 'ledger.json');
  port = await freePort();
  service = await startServiceProcess(dataDir, undefined, env);
  shell = spawn('sh', ['-eu'], {
    cwd: ROOT,
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
    env: {
      ...process.env,
      ...env,
      FEWLOOP_PYTHON: trainerPython(),
      FEWLOOP_DATA_DIR: dataDir,
      BACKUP: backup,
      RESTORED: restored,
      LEDGER: ledger,
      FEWLOOP_URL: service.url,
    },
  });
  for (const stream of [shell.stdout!, shell.stderr!])
    stream.on('data', (bytes: Buffer) => (output += bytes.toString()));
});
afterAll(async () => {
  if (shell?.pid !== undefined && isAlive(shell.pid)) process.kill(-shell.pid, 'SIGKILL');
  await service?.kill();
  for (const one of [folder, dataDir, restored]) rmSync(one, { recursive: true, force: true });
});

it('a service with a trained version, candidates, answers and a ledger', async () => {
  await service.request('mutation ($d: String!) { applyTask(definition: $d) { name } }', { d: TASK });
  const add =
    'mutation ($examples: [ExampleInput!]!) { importExamples(task: "reviews", examples: $examples) { added } }';
  await service.request(add, { examples: EXAMPLES });
  await service.request('mutation { startRetrain(task: "reviews") { id } }');
  const inputs = TEXTS.map(({ text }, i) => ({ id: String(i), text }));
  await service.request('mutation ($i: [TextInput!]!) { ingest(task: "reviews", inputs: $i) { accepted } }', {
    i: inputs,
  });
  const wanted = { runs: [{ state: 'SUCCEEDED', error: null }], stream: { pending: 0, scored: TEXTS.length } };
  await expect.poll(() => service.request(RUNS), { timeout: 300_000, interval: 250 }).toMatchObject({ task: wanted });
  const { task } = await service.request<{ task: { promotions: { id: string }[] } }>(RUNS);
  const approve = 'mutation ($id: ID!) { approvePromotion(id: $id, override: true, comment: "a test") { decision } }';
  await service.request(approve, { id: task.promotions[0]!.id });
  before = await all(service);
  expect(before).toMatchObject({
    classify: TEXTS.map(() => ({ modelVersion: 2 })),
    questions: { length: TEXTS.length },
  });
});

it('is backed up while it runs', async () => {
  expect(BLOCKS).toHaveLength(8);
  const printed = await execute(BLOCKS[0]!);
  expect(printed).toMatch(
    /backed up to .*monday: \d+ tables with \d+ rows, 2 bundles, 1 runs; .* MB in .* s\ndigest [0-9a-f]{64}\n/u,
  );
  expect(await execute(BLOCKS[1]!)).toBe('backup.json: OK\n');
});

it('an altered or incomplete one is refused, and nothing restored', async () => {
  const restore = () => startCli('', ['restore', backup], '', { ...env, FEWLOOP_DATA_DIR: restored }).done;
  const [bundle] = [join(backup, 'bundles/reviews/2')];
  const graph = join(
    bundle,
    readdirSync(bundle).find((name) => name.endsWith('.onnx'))!,
  );
  const rows = join(backup, 'database/example.copy.gz');
  for (const file of [graph, rows]) {
    const bytes = readFileSync(file);
    appendFileSync(file, 'x');
    expect(await restore()).toMatchObject({ code: 1, err: expect.stringContaining('is not what') });
    rmSync(file);
    expect(await restore()).toMatchObject({ code: 1, err: expect.stringMatching(/is not what|no such file/u) });
    writeFileSync(file, bytes);
  }
  expect(readdirSync(restored)).toEqual([]);
});

it('has the ledger of the service that goes on, which knows what was forgotten since', async () => {
  await service.request('mutation ($text: String!) { forget(task: "reviews", text: $text) { digest } }', {
    text: FORGOTTEN,
  });
  await execute(BLOCKS[2]!);
  const [newest] = JSON.parse(readFileSync(ledger, 'utf8')) as object[];
  expect(newest).toMatchObject({ kind: 'forgotten' });
});

it('is restored: the same answers, versions, candidates, examples and ledger', async () => {
  await execute(BLOCKS[3]!);
  await execute(BLOCKS[4]!);
  const client = graphqlClient(`http://127.0.0.1:${port}/graphql`);
  expect(await all(client)).toEqual(before);
  expect(existsSync(join(restored, 'bundles/reviews/2/manifest.json'))).toBe(true);
  const { verifyLedger } = before;
  const printed = await execute(BLOCKS[5]!);
  expect(printed).toMatch(/^reviews .* 2 /mu);
  expect(printed).toContain(`${verifyLedger.entries} entries hold; the last hash is ${verifyLedger.lastHash}`);
});

it('what was forgotten since is forgotten again', async () => {
  expect(await execute(BLOCKS[6]!)).toMatch(/^1 candidates, .* erased; its digest is [0-9a-f]{64}$/mu);
  const { questions } = await all(graphqlClient(`http://127.0.0.1:${port}/graphql`));
  expect(questions).toEqual(before.questions.filter((text) => text !== FORGOTTEN));
  expect(questions).toHaveLength(TEXTS.length - 1);
});

it('ends', async () => {
  const below = descendants(shell.pid!);
  expect(below.length).toBeGreaterThan(2);
  await execute(BLOCKS[7]!);
  await until(() => !below.some(isAlive), 30_000);
  shell.stdin!.end();
  expect((await once(shell, 'exit'))[0]).toBe(0);
});
