/**
 * The trainer's Python environment, `.venv`, installed from trainer/requirements.txt with its hashes. The service runs
 * without it; a training run waits for it. Run alone: `node scripts/trainer-env.mjs`.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fileDigest, readStamp, root, run, say, step, writeStamp } from './prepare.mjs';

const folder = join(root, '.venv');
const requirements = join(root, 'trainer', 'requirements.txt');
const stamp = join(folder, '.fewloop-lock');
export const trainerPython = join(folder, 'bin', 'python');

const CANDIDATES = ['python3.12', 'python3.11', 'python3.13', 'python3', 'python'];
const INSTALL_HINT =
  'Training needs Python 3.11, 3.12 or 3.13 with its venv module (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.12). Serving works without it.';

/** The first Python on the path that the lock file is made for. Throws with what to install. */
export function findPython() {
  const seen = [];
  for (const name of CANDIDATES) {
    const probe = 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])';
    const result = spawnSync(name, ['-c', probe], { encoding: 'utf8' });
    const version = result.status === 0 ? result.stdout.trim() : undefined;
    if (version && ['3.11', '3.12', '3.13'].includes(version)) return name;
    if (version) seen.push(`${name} is ${version}`);
    else if (!result.error) seen.push(`${name} lacks venv or is broken`);
  }
  throw new Error(`${seen.length ? `No suitable Python (${seen.join(', ')}).` : 'No Python found.'} ${INSTALL_HINT}`);
}

/** Installs what is missing and returns the environment's Python. `report` gets {progress, message}. */
export async function ensureTrainerEnvironment(report = () => {}) {
  const lock = fileDigest(requirements);
  if (readStamp(stamp) === lock && existsSync(trainerPython)) {
    nameTrainer();
    return trainerPython;
  }
  const python = findPython();
  const total = readFileSync(requirements, 'utf8')
    .split('\n')
    .filter((line) => /^[a-z0-9].*==/i.test(line)).length;
  await step('Installing the trainer’s Python environment (6 GB)', async (note) => {
    const tell = (progress, message) => {
      note(message);
      report({ progress, message });
    };
    tell(0, 'making .venv');
    await run(python, ['-m', 'venv', '--clear', folder]);
    let collected = 0;
    const pip = [
      '-m',
      'pip',
      'install',
      '--disable-pip-version-check',
      '--progress-bar',
      'off',
      '--require-hashes',
      '-r',
      requirements,
    ];
    await run(trainerPython, pip, {
      onLine: (line) => {
        if (line.startsWith('Collecting ')) tell((0.6 * ++collected) / total, `downloading ${collected} of ${total}`);
        if (line.startsWith('Installing collected')) tell(0.7, 'unpacking');
      },
    });
  });
  nameTrainer();
  writeStamp(stamp, lock);
  return trainerPython;
}

/**
 * So that `.venv/bin/python -m fewloop_trainer` works from any folder. What has another trainer before it on its path,
 * by its working folder or PYTHONPATH, runs that one.
 */
function nameTrainer() {
  const lib = join(folder, 'lib');
  for (const version of readdirSync(lib).filter((name) => name.startsWith('python'))) {
    writeFileSync(join(lib, version, 'site-packages', 'fewloop.pth'), `${join(root, 'trainer')}\n`);
  }
}

/** As `ensureTrainerEnvironment`, its state kept in `<dataDir>/trainer-env.json`, where training runs look. */
export async function ensureWithState(dataDir) {
  const file = join(dataDir, 'trainer-env.json');
  const write = (state) => {
    mkdirSync(dataDir, { recursive: true });
    writeFileSync(`${file}.partial`, `${JSON.stringify({ ...state, at: new Date().toISOString() })}\n`);
    renameSync(`${file}.partial`, file);
  };
  try {
    write({ state: 'installing', progress: 0 });
    const python = await ensureTrainerEnvironment(({ progress, message }) =>
      write({ state: 'installing', progress, message }),
    );
    write({ state: 'ready', python });
    return true;
  } catch (error) {
    write({ state: 'failed', message: error.message });
    say(error.message);
    return false;
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const ok = await ensureWithState(process.env.FEWLOOP_DATA_DIR || join(root, '.fewloop'));
  process.exitCode = ok ? 0 : 1;
}
