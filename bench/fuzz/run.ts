/**
 * The built service under a public fuzzer, schemathesis, which makes queries and mutations by the schema and sends them
 * as an ADMIN, most of them about a task that there is: no 5xx, no INTERNAL, no hang, no growth. In an environment of its own:
 *   python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install -r bench/fuzz/requirements.in
 *   node bench/fuzz/run.ts --schemathesis /tmp/fuzz/bin/schemathesis [--seconds 600] [--seed 1]
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    schemathesis: { type: 'string', default: 'schemathesis' },
    seconds: { type: 'string', default: '600' },
    seed: { type: 'string', default: '1' },
  },
});
const root = join(import.meta.dirname, '../..');
const folder = mkdtempSync(join(tmpdir(), 'fewloop-fuzz-'));
chmodSync(folder, 0o755); // PostgreSQL may run as another user, who walks through it
const key = randomBytes(32).toString('hex');
const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
const until = Date.now() + Number(values.seconds) * 1000;

const service = spawn(process.execPath, [join(root, 'dist/src/main.js')], {
  stdio: ['ignore', 'pipe', 'inherit'],
  env: {
    ...process.env,
    PORT: '0',
    FEWLOOP_DATA_DIR: folder,
    FEWLOOP_AUTH: 'required',
    FEWLOOP_ADMIN_KEY: key,
    FEWLOOP_BASE_MODEL: join(root, 'test/fixtures/tiny-model'),
    FEWLOOP_HOSTS: '1',
    // Runs that the fuzzer starts fail at once.
    FEWLOOP_PYTHON: '/bin/false',
    FEWLOOP_LOG_LEVEL: 'error',
  },
});

function ready(): Promise<string> {
  return new Promise((resolve, reject) => {
    let output = '';
    service.stdout.on('data', (data: Buffer) => {
      process.stdout.write(data);
      output += data.toString();
      const url = /^ready (\S+)$/mu.exec(output)?.[1];
      if (url) resolve(url);
    });
    service.once('exit', () => reject(new Error('the service ended')));
  });
}

function memoryMib(): number {
  const status = readFileSync(`/proc/${service.pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/u.exec(status)?.[1]) / 1024;
}

/** A short request, which must still be answered in time. */
async function answers(url: string): Promise<void> {
  const body = JSON.stringify({ query: '{ tasks { name } }' });
  const response = await fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`the service answers ${response.status}`);
}

async function request<T>(url: string, query: string, variables: object = {}): Promise<T> {
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify({ query, variables }) });
  const { data, errors } = (await response.json()) as { data: T; errors?: unknown };
  if (errors) throw new Error(JSON.stringify(errors));
  return data;
}

/** A task with examples, candidates and a run. Returns values of arguments that lead to them. */
async function fill(url: string): Promise<Record<string, string[]>> {
  const definition = readFileSync(join(root, 'examples/reviews/task.yaml'), 'utf8');
  const apply = 'mutation ($definition: String!) { applyTask(definition: $definition) { name labels } }';
  const { applyTask } = await request<{ applyTask: { name: string; labels: string[] } }>(url, apply, { definition });
  const { name: task, labels } = applyTask;
  const texts = Array.from({ length: 60 }, (_, i) => `第${i}条评论，东西${i % 2 === 0 ? '很好' : '太差'}`);
  const examples = texts.slice(0, 30).map((text, i) => ({ text, labels: [labels[i % labels.length]] }));
  const load = `mutation ($task: String!, $examples: [ExampleInput!]!, $inputs: [TextInput!]!) {
    importExamples(task: $task, examples: $examples) { added }
    ingest(task: $task, inputs: $inputs) { accepted }
    startRetrain(task: $task) { id }
  }`;
  const inputs = texts.slice(30).map((text) => ({ text }));
  const { startRetrain } = await request<{ startRetrain: { id: string } }>(url, load, { task, examples, inputs });
  const asked = 'query ($task: String!) { reviewQueue(task: $task, first: 20) { edges { node { id } } } }';
  let candidates: string[] = [];
  while (candidates.length === 0) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const { reviewQueue } = await request<{ reviewQueue: { edges: { node: { id: string } }[] } }>(url, asked, { task });
    candidates = reviewQueue.edges.map(({ node }) => node.id);
  }
  return { task: [task], definition: [definition], label: labels, run: [startRetrain.id], candidate: candidates, text: texts };
}

/** Nine in ten arguments of these names take such a value, the others whatever the fuzzer makes. */
function dictionaries(values: Record<string, string[]>): string {
  const lists = Object.entries(values).map(([name, list]) => `[dictionaries.${name}]\nvalues = ${JSON.stringify(list)}\n`);
  const bound = {
    ...{ '*.*.task': 'task', 'Query.task.name': 'task', 'Mutation.applyTask.definition': 'definition' },
    ...{ '*.*.candidate': 'candidate', '*.*.labels[*]': 'label', 'Mutation.forget.text': 'text' },
    ...{ '*.*.inputs[*].text': 'text', '*.*.examples[*].text': 'text', '*.*.examples[*].labels[*]': 'label' },
    ...{ 'Query.trainingRun.id': 'run', 'Mutation.cancelRun.id': 'run', 'Mutation.reproduceRun.id': 'run' },
  };
  const lines = Object.entries(bound).map(([path, name]) => `"${path}" = { dictionary = "${name}", probability = 0.9 }`);
  return `${lists.join('\n')}\n[parameters]\n${lines.join('\n')}\n`;
}

try {
  const url = await ready();
  const config = join(folder, 'schemathesis.toml');
  writeFileSync(config, dictionaries(await fill(url)));
  const memory: number[] = [];
  let failed = 0;
  for (let seed = Number(values.seed); Date.now() < until; seed++) {
    const args = ['--config-file', config, 'run', url, '--seed', String(seed), '--max-examples', '50', '--request-timeout', '20'];
    const more = ['--checks', 'no_defect', '--header', `Authorization: Bearer ${key}`, '--phases', 'fuzzing'];
    const env = { ...process.env, SCHEMATHESIS_HOOKS: 'hooks', PYTHONPATH: import.meta.dirname };
    const left = Math.max(1_000, until - Date.now());
    const fuzzer = spawn(values.schemathesis, [...args, ...more], {
      stdio: ['ignore', 'inherit', 'inherit'],
      cwd: folder,
      env,
      timeout: left,
    });
    const status = await new Promise<number | null>((resolve) => fuzzer.once('exit', resolve));
    if (status !== null && status !== 0) failed += 1;
    await answers(url);
    memory.push(memoryMib());
  }
  process.stdout.write(`memory after each round, MiB: ${memory.map((mib) => mib.toFixed(0)).join(' ')}; ${failed} rounds failed\n`);
  if (failed > 0) process.exitCode = 1;
} finally {
  service.kill('SIGTERM');
  await new Promise((resolve) => (service.exitCode === null ? service.once('exit', resolve) : resolve(null)));
  rmSync(folder, { recursive: true, force: true });
}
