/**
 * The built service under a public fuzzer, schemathesis, which makes queries and mutations by the schema and sends them
 * as an ADMIN: no 5xx, no INTERNAL, no hang, no growth. In an environment of its own:
 *   python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install -r bench/fuzz/requirements.in
 *   node bench/fuzz/run.ts --schemathesis /tmp/fuzz/bin/schemathesis [--seconds 600] [--seed 1]
 */
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
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

try {
  const url = await ready();
  const definition = readFileSync(join(root, 'examples/reviews/task.yaml'), 'utf8');
  const query = 'mutation ($definition: String!) { applyTask(definition: $definition) { name } }';
  await fetch(url, { method: 'POST', headers, body: JSON.stringify({ query, variables: { definition } }) });
  const memory: number[] = [];
  let failed = 0;
  for (let seed = Number(values.seed); Date.now() < until; seed++) {
    const args = ['run', url, '--seed', String(seed), '--max-examples', '50', '--request-timeout', '20'];
    const more = ['--checks', 'no_defect', '--header', `Authorization: Bearer ${key}`, '--phases', 'fuzzing'];
    const env = { ...process.env, SCHEMATHESIS_HOOKS: 'hooks', PYTHONPATH: import.meta.dirname };
    const left = Math.max(1_000, until - Date.now());
    const { status } = spawnSync(values.schemathesis, [...args, ...more], {
      stdio: ['ignore', 'inherit', 'inherit'],
      cwd: import.meta.dirname,
      env,
      timeout: left,
    });
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
