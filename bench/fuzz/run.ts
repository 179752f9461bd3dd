/**
 * The built service under a public fuzzer, schemathesis, which makes queries and mutations by the schema and sends them
 * as an ADMIN, most of them about a task that there is: no 5xx, no INTERNAL, no hang, no growth. In an environment of its own:
 *   python3 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install -r bench/fuzz/requirements.in
 *   node bench/fuzz/run.ts --schemathesis /tmp/fuzz/bin/schemathesis [--seconds 600] [--seed 1]
 */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { fill, start } from './subject.ts';

const { values } = parseArgs({
  options: {
    schemathesis: { type: 'string', default: 'schemathesis' },
    seconds: { type: 'string', default: '600' },
    seed: { type: 'string', default: '1' },
  },
});
const until = Date.now() + Number(values.seconds) * 1000;

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

const subject = await start();
const { url, key, folder } = subject;
try {
  const config = join(folder, 'schemathesis.toml');
  writeFileSync(config, dictionaries(await fill(subject)));
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
    await subject.answers();
    memory.push(subject.memoryMib());
  }
  process.stdout.write(`memory after each round, MiB: ${memory.map((mib) => mib.toFixed(0)).join(' ')}; ${failed} rounds failed\n`);
  if (failed > 0) process.exitCode = 1;
} finally {
  await subject.stop();
}
