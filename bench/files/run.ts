/**
 * What long files take: ROWS labelled texts into the built service with everything embedded, on the tiny model, in each
 * format that streams, killed half-way and resumed, and out again. Rows a second and the most memory of the command and
 * of the service's process. Prints a JSON object a line (docs/results/files.md).
 *   node bench/files/run.ts ROWS
 */
import { spawn } from 'node:child_process';
import { chmodSync, createWriteStream, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';

const MAIN = new URL('../../dist/src/main.js', import.meta.url).pathname;
const BASE_MODEL = new URL('../../test/fixtures/tiny-model', import.meta.url).pathname;
const { written } = (await import('../../dist/src/cli/formats/formats.js' as string)) as {
  written: (format: string, records: AsyncIterable<object>, names: string[]) => AsyncIterable<string>;
};

const CLI = new URL('../../dist/src/cli/main.js', import.meta.url).pathname;
const rows = Number(process.argv[2] ?? 100_000);
const folder = mkdtempSync(join(tmpdir(), 'fewloop-files-'));
const dataDir = mkdtempSync(join(tmpdir(), 'fewloop-files-data-'));
chmodSync(dataDir, 0o755); // PostgreSQL may run as another user, who walks through it
const service = spawn(process.execPath, [MAIN], {
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, PORT: '0', FEWLOOP_DATA_DIR: dataDir, FEWLOOP_BASE_MODEL: BASE_MODEL, FEWLOOP_HOSTS: '1', FEWLOOP_LOG_LEVEL: 'warn' },
});
const serviceUrl = await new Promise<string>((resolve, reject) => {
  let output = '';
  service.once('exit', () => reject(new Error(`the service did not start: ${output}`)));
  service.stdout.on('data', (bytes: Buffer) => {
    output += bytes.toString();
    const url = /^ready (\S+)$/mu.exec(output)?.[1];
    if (url !== undefined) resolve(url);
  });
});
const servicePid = service.pid!;

const peakMb = (pid: number) => Number(/VmHWM:\s+(\d+)/u.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

/** Seconds, exit code and the command's peak memory; `killAfterMs`: SIGKILL then. */
async function fewloop(args: string[], killAfterMs?: number) {
  const startedAt = performance.now();
  const env = { ...process.env, FEWLOOP_URL: serviceUrl, XDG_STATE_HOME: folder };
  const child = spawn(process.execPath, [CLI, ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (bytes: Buffer) => (out += bytes.toString()));
  let mb = 0;
  const look = setInterval(() => {
    try {
      mb = Math.max(mb, peakMb(child.pid!));
    } catch {
      // It has ended.
    }
  }, 100);
  const killer = killAfterMs && setTimeout(() => child.kill('SIGKILL'), killAfterMs);
  const [code] = (await once(child, 'close')) as [number | null];
  clearInterval(look);
  clearTimeout(killer);
  return { seconds: (performance.now() - startedAt) / 1000, code, out, mb: Math.round(mb) };
}

async function* records() {
  for (let i = 0; i < rows; i++) {
    const label = i % 3 === 0 ? 'negative' : 'positive';
    yield { text: `第${i}条评价：房间${i % 7}楼，早餐${i % 11}种，服务${label === 'positive' ? '周到' : '冷淡'}`, labels: [label] };
  }
}

const told = (what: string, seconds: number, more: object) =>
  console.log(JSON.stringify({ what, rows, seconds: Number(seconds.toFixed(1)), rowsPerSecond: Math.round(rows / seconds), ...more }));

try {
  for (const format of ['jsonl', 'csv', 'label-studio'] as const) {
    const name = `files-${format}`;
    const task = join(folder, `${name}.yaml`);
    writeFileSync(
      task,
      `name: ${name}\nkind: single-label\nlabels: [{name: positive, words: [好]}, {name: negative, words: [差]}]\n` +
        'templates: ["这是一条{mask}评。{text}"]\nmaxLength: 64\nlearning: {trigger: {newLabels: null}}\n',
    );
    const applied = await fewloop(['task', 'apply', task]);
    if (applied.code !== 0) throw new Error('the task was not applied');
    const file = join(folder, name);
    const stream = createWriteStream(file);
    for await (const piece of written(format, records(), [])) if (!stream.write(piece)) await once(stream, 'drain');
    stream.end();
    await once(stream, 'finish');
    const fileMb = Math.round(statSync(file).size / 2 ** 20);
    const args = ['--json', 'import', name, file, '--format', format, '--split', 'train'];
    const killed = await fewloop(args, 5000);
    const rest = await fewloop(args);
    const { added, unchanged, rejectedCount, resumedAfter } = JSON.parse(rest.out) as Record<string, number>;
    told(`import ${format}, killed after 5 s and resumed`, killed.seconds + rest.seconds, {
      fileMb, added, unchanged, rejectedCount, resumedAfter, commandMb: Math.max(killed.mb, rest.mb), serviceMb: Math.round(peakMb(servicePid)),
    });
    rmSync(file);
  }
  for (const format of ['jsonl', 'parquet', 'label-studio']) {
    const out = join(folder, `out.${format}`);
    const { seconds, code, mb } = await fewloop(['export', 'files-jsonl', '--format', format, '--out', out]);
    told(`export ${format}`, seconds, { code, fileMb: Math.round(statSync(out).size / 2 ** 20), commandMb: mb, serviceMb: Math.round(peakMb(servicePid)) });
  }
  const again = await fewloop(['--json', 'import', 'files-jsonl', join(folder, 'out.parquet')]);
  told('import of the parquet export', again.seconds, { ...(JSON.parse(again.out) as object), commandMb: again.mb });
} finally {
  service.kill('SIGTERM');
  await once(service, 'exit');
  rmSync(folder, { recursive: true, force: true });
  rmSync(dataDir, { recursive: true, force: true });
}
