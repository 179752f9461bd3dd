/**
 * `npm test`: installs what is missing and runs every check and test, cheapest first. The trainer's environment is
 * installed beside the checks that do not need it; its tests, one thread of computing, run beside the integration tests,
 * which mostly wait, and are told once they have ended. Closes with what failed, and with one line that counts the tests.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, relative } from 'node:path';
import { pinnedNode, prepare, root, say } from './prepare.mjs';
import { ensureTrainerEnvironment, trainerPython } from './trainer-env.mjs';

const results = mkdtempSync(join(tmpdir(), 'fewloop-test-'));
const counts = { passed: 0, failed: 0, skipped: 0 };
const failedSteps = [];
/** Told at the end once more: of a long log its end is what is read. */
const failedTests = [];

const bin = (name) => join(root, 'node_modules', '.bin', name);
const environment = {
  ...process.env,
  PATH: [dirname(pinnedNode), process.env.PATH].join(delimiter),
  PYTHONPATH: join(root, 'trainer'),
  FEWLOOP_PYTHON: trainerPython,
};

/** `output`: where it goes; a file's descriptor, or this process's own. */
function execute(command, args, { cwd = root, output = 'inherit', env = {} } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, stdio: ['ignore', output, output], env: { ...environment, ...env } });
    child.once('error', () => resolve(1));
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

function tell(name, code, tookMs) {
  say(`── ${name}: ${code === 0 ? 'passed' : `FAILED (exit ${code})`} in ${Math.round(tookMs / 1000)} s`);
  if (code !== 0) failedSteps.push(name);
}

async function check(name, command, args) {
  const started = Date.now();
  say(`\n── ${name}`);
  const code = await execute(command, args);
  tell(name, code, Date.now() - started);
}

async function vitest(project) {
  const file = join(results, `${project}.json`);
  await check(`${project} tests`, bin('vitest'), [
    'run',
    '--project',
    project,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${file}`,
  ]);
  if (!existsSync(file)) return;
  const report = JSON.parse(readFileSync(file, 'utf8'));
  counts.passed += report.numPassedTests;
  counts.failed += report.numFailedTests;
  counts.skipped += report.numPendingTests;
  for (const { name, status, message, assertionResults } of report.testResults) {
    const path = relative(root, name);
    const failed = assertionResults.filter((test) => test.status === 'failed');
    for (const test of failed) failedTests.push(`${path}: ${test.fullName}\n${test.failureMessages.join('\n')}`);
    if (status === 'failed' && !failed.length) failedTests.push(`${path}\n${message}`);
  }
}

/** Resolves to what says how it went. */
async function pytest() {
  const started = Date.now();
  const [file, log] = [join(results, 'pytest.xml'), join(results, 'pytest.log')];
  const output = openSync(log, 'w');
  const code = await execute(trainerPython, ['-m', 'pytest', `--junitxml=${file}`], {
    cwd: join(root, 'trainer'),
    output,
    env: { OMP_NUM_THREADS: '1' },
  });
  closeSync(output);
  const tookMs = Date.now() - started;
  return () => {
    say('\n── trainer tests');
    const told = readFileSync(log, 'utf8');
    process.stdout.write(told);
    tell('trainer tests', code, tookMs);
    failedTests.push(...told.split('\n').filter((line) => /^(FAILED|ERROR) /u.test(line)));
    countPytest(file);
  };
}

function countPytest(file) {
  if (!existsSync(file)) return;
  const count = (name) =>
    Number(new RegExp(`<testsuite [^>]*${name}="(\\d+)"`).exec(readFileSync(file, 'utf8'))?.[1] ?? 0);
  const failed = count('failures') + count('errors');
  counts.passed += count('tests') - failed - count('skipped');
  counts.failed += failed;
  counts.skipped += count('skipped');
}

await prepare();
const trainer = ensureTrainerEnvironment().then(
  () => undefined,
  (error) => error,
);
await check('format', bin('prettier'), ['--log-level', 'warn', '--check', '.']);
await check('lint', bin('oxlint'), ['--type-aware', '--deny-warnings', 'src', 'test', 'migrations']);
await check('types', bin('tsc'), ['--noEmit', '-p', 'tsconfig.json']);
await check('types of bench', bin('tsc'), ['-p', 'bench/tsconfig.json']);
await check('import rules', bin('depcruise'), ['--config', '.dependency-cruiser.mjs', 'src', 'migrations']);
await check('unused code', bin('knip'), []);
await check('lock file', pinnedNode, ['scripts/lockcheck.mjs']);
await vitest('unit');
const trainerError = await trainer;
if (trainerError) {
  say(trainerError.message);
  failedSteps.push('trainer environment');
} else {
  await check('trainer lint', trainerPython, ['-m', 'ruff', 'check', 'trainer']);
  await check('trainer format', trainerPython, ['-m', 'ruff', 'format', '--check', 'trainer']);
}
await vitest('contract');
const trainerTests = trainerError ? undefined : pytest();
await vitest('integration');
(await trainerTests)?.();
await vitest('e2e');

rmSync(results, { recursive: true, force: true });
for (const test of failedTests) say(`\n${test}`);
if (failedSteps.length) say(`\nFailed: ${failedSteps.join(', ')}`);
process.stdout.write(
  `\n${counts.passed} passed, ${counts.failed} failed${counts.skipped ? `, ${counts.skipped} skipped` : ''}\n`,
);
process.exitCode = failedSteps.length || counts.failed || !counts.passed ? 1 : 0;
