/**
 * What the entry scripts share: installing the locked packages, building, finding the pinned Node. Node's own modules
 * alone, because on a fresh clone nothing else is there; runs under Node 20 and later.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const pinnedNode = join(root, 'node_modules', 'node', 'bin', 'node');
export const builtMain = join(root, 'dist', 'src', 'main.js');
export const builtCli = join(root, 'dist', 'src', 'cli', 'main.js');

/**
 * Of the service's Node, in docker/Dockerfile too. V8 would give new objects 128 MB, of which requests need little: 16 MB
 * halves keep 75 MB less, at about 5 % more processor time of the service's own. Requests that wait become old there;
 * collected at every third more, not at twice as many, they leave memory flat in overload, at no cost that was measured.
 */
export const serviceFlags = ['--max-semi-space-size=16', '--heap-growing-percent=30'];

const BUILD_INPUTS = [
  'src',
  'migrations',
  'package-lock.json',
  'nest-cli.json',
  '.swcrc',
  'tsconfig.json',
  'tsconfig.build.json',
];

/** Messages go to standard error: standard output belongs to the command's own answer. */
export function say(message) {
  process.stderr.write(`${message}\n`);
}

/** Shows what a long step does and for how long; on a terminal in one line, elsewhere a line every ten seconds. */
export async function step(name, work) {
  const started = Date.now();
  const seconds = () => Math.round((Date.now() - started) / 1000);
  let note = '';
  const terminal = process.stderr.isTTY;
  if (!terminal) say(`${name} …`);
  const timer = setInterval(
    () =>
      terminal
        ? process.stderr.write(`\r\x1b[2K${name} … ${seconds()} s ${note}`)
        : say(`${name} … ${seconds()} s ${note}`),
    terminal ? 500 : 10_000,
  );
  try {
    const result = await work((text) => (note = text));
    clearInterval(timer);
    say(`${terminal ? '\r\x1b[2K' : ''}${name}: done in ${seconds()} s`);
    return result;
  } catch (error) {
    clearInterval(timer);
    say(`${terminal ? '\r\x1b[2K' : ''}${name}: failed after ${seconds()} s`);
    throw error;
  }
}

/** Runs a program to its end; rejects with its last output when it fails. */
export function run(command, args, { onLine, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], ...options });
    let tail = '';
    const read = (chunk) => {
      tail = (tail + chunk).slice(-4000);
      for (const line of String(chunk).split('\n')) if (line.trim()) onLine?.(line.trim());
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.once('error', reject);
    child.once('close', (code, signal) =>
      code === 0 ? resolve() : reject(new Error(`${command} ${args.join(' ')} ended with ${signal ?? code}:\n${tail}`)),
    );
  });
}

export function fileDigest(path) {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

export function readStamp(path) {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

export function writeStamp(path, value) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, value);
}

async function installPackages() {
  const stamp = join(root, 'node_modules', '.fewloop-lock');
  const lock = fileDigest(join(root, 'package-lock.json'));
  if (readStamp(stamp) === lock && existsSync(pinnedNode)) return;
  await step('Installing the locked packages (npm ci, about 1 GB)', async (note) => {
    const npm = process.env.npm_execpath;
    const counting = setInterval(() => note(`(${packageCount()} packages)`), 2000);
    try {
      await run(npm ? process.execPath : 'npm', [...(npm ? [npm] : []), 'ci', '--no-audit', '--no-fund']);
    } finally {
      clearInterval(counting);
    }
  });
  writeStamp(stamp, lock);
}

function packageCount() {
  const folder = join(root, 'node_modules');
  return existsSync(folder) ? readdirSync(folder).length : 0;
}

function sourcesDigest() {
  const hash = createHash('sha256');
  const add = (path) => {
    const full = join(root, path);
    if (!existsSync(full)) return;
    hash.update(path).update('\0').update(readFileSync(full)).update('\0');
  };
  for (const input of BUILD_INPUTS) {
    if (/\.\w+$/.test(input)) {
      add(input);
      continue;
    }
    const files = readdirSync(join(root, input), { recursive: true, withFileTypes: true });
    const names = files
      .filter((f) => f.isFile())
      .map((f) => join(f.parentPath ?? f.path, f.name).slice(root.length + 1));
    for (const name of names.sort()) if (!name.endsWith('.spec.ts')) add(name);
  }
  return hash.digest('hex');
}

async function build() {
  const stamp = join(root, 'dist', '.fewloop-sources');
  const digest = sourcesDigest();
  if (readStamp(stamp) === digest) return;
  const nest = join(root, 'node_modules', '@nestjs', 'cli', 'bin', 'nest.js');
  await step('Building', () => run(pinnedNode, [nest, 'build']));
  if (!existsSync(builtMain)) throw new Error('the build wrote no dist/src/main.js');
  writeStamp(stamp, digest);
}

/** Packages installed and sources built; does nothing while lock file and sources are unchanged. */
export async function prepare() {
  await installPackages();
  await build();
}
