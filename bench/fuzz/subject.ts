/** What is fuzzed: the built service with access control, a task with examples, candidates and a run. */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Service, startService } from '../loop/service.ts';

const root = join(import.meta.dirname, '../..');

export interface Subject {
  url: string;
  pid: number;
  /** Of an ADMIN. */
  key: string;
  /** Where it and who fuzzes it keep their files; gone with it. */
  folder: string;
  request<T>(query: string, variables?: object): Promise<T>;
  /** Throws where a plain query is not answered within ten seconds. */
  answers(): Promise<void>;
  memoryMib(): number;
  stop(): Promise<void>;
}

export async function start(): Promise<Subject> {
  const folder = mkdtempSync(join(tmpdir(), 'fewloop-fuzz-'));
  chmodSync(folder, 0o755); // PostgreSQL may run as another user, who walks through it
  const key = randomBytes(32).toString('hex');
  const service: Service = await startService(folder, {
    FEWLOOP_AUTH: 'required',
    FEWLOOP_ADMIN_KEY: key,
    FEWLOOP_BASE_MODEL: join(root, 'test/fixtures/tiny-model'),
    FEWLOOP_HOSTS: '1',
    // Runs that the fuzzer starts fail at once.
    FEWLOOP_PYTHON: '/bin/false',
    FEWLOOP_LOG_LEVEL: 'error',
  });
  const { url, pid } = service;
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
  const send = (query: string, variables: object, signal?: AbortSignal) =>
    fetch(url, { method: 'POST', headers, body: JSON.stringify({ query, variables }), signal: signal ?? null });
  return {
    ...{ url, pid, key, folder },
    async request<T>(query: string, variables: object = {}) {
      const { data, errors } = (await (await send(query, variables)).json()) as { data: T; errors?: unknown };
      if (errors) throw new Error(JSON.stringify(errors));
      return data;
    },
    async answers() {
      const response = await send('{ tasks { name } }', {}, AbortSignal.timeout(10_000));
      if (!response.ok) throw new Error(`the service answers ${response.status}`);
    },
    memoryMib() {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      return Number(/VmRSS:\s+(\d+)/u.exec(status)?.[1]) / 1024;
    },
    async stop() {
      await service.stop();
      if (process.exitCode) process.stdout.write(`what it logged is in ${folder}\n`);
      else rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A task with examples, candidates and a run. Returns values of arguments that lead to them. */
export async function fill({ request }: Subject): Promise<Record<string, string[]>> {
  const definition = readFileSync(join(root, 'examples/reviews/task.yaml'), 'utf8');
  const apply = 'mutation ($definition: String!) { applyTask(definition: $definition) { name labels } }';
  const { applyTask } = await request<{ applyTask: { name: string; labels: string[] } }>(apply, { definition });
  const { name: task, labels } = applyTask;
  const texts = Array.from({ length: 60 }, (_, i) => `第${i}条评论，东西${i % 2 === 0 ? '很好' : '太差'}`);
  const examples = texts.slice(0, 30).map((text, i) => ({ text, labels: [labels[i % labels.length]] }));
  const load = `mutation ($task: String!, $examples: [ExampleInput!]!, $inputs: [TextInput!]!) {
    importExamples(task: $task, examples: $examples) { added }
    ingest(task: $task, inputs: $inputs) { accepted }
    startRetrain(task: $task) { id }
  }`;
  const inputs = texts.slice(30).map((text) => ({ text }));
  const { startRetrain } = await request<{ startRetrain: { id: string } }>(load, { task, examples, inputs });
  const asked = 'query ($task: String!) { reviewQueue(task: $task, first: 20) { edges { node { id } } } }';
  let candidates: string[] = [];
  while (candidates.length === 0) {
    await sleep(500);
    const { reviewQueue } = await request<{ reviewQueue: { edges: { node: { id: string } }[] } }>(asked, { task });
    candidates = reviewQueue.edges.map(({ node }) => node.id);
  }
  return { task: [task], definition: [definition], label: labels, run: [startRetrain.id], candidate: candidates, text: texts };
}
