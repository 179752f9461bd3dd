/**
 * The trainer as a child process: `python -m fewloop_trainer run FOLDER`.
 * Invariants: at most one trainer writes a run folder (one that a killed service left is ended first); a trainer
 * does not outlive the service (the kernel kills it with its parent where `setpriv` is; elsewhere it sees, told
 * by `--parent`, that its parent is gone); what it prints stays in the folder's trainer.log.
 * May import: task.
 *
 *   waiting for the environment ──▶ running ──▶ exited with a result
 *            │ stop                   │ stop: SIGTERM, after 10 s SIGKILL
 *            ▼                        ▼
 *         STOPPED                  STOPPED
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { childEnvironment } from '../config/config.js';
import type { Launcher, RunningTrainer } from './launcher.js';
import { ProgressTail } from './progress-tail.js';
import { clearResult, LOG_FILE, PROGRESS_FILE, readResult, type RunProgress, type RunResult } from './run-folder.js';
import { lackOf, processOptions, readEnvironment, trainerFolder, WITHOUT_TRIMMING } from './trainer-program.js';

const PID_FILE = 'trainer.pid';
const ENVIRONMENT_POLL_MS = 1000;
/** `npm start` begins to install once the service answers; who has not begun after that long will not. */
const BEGUN_WITHIN_MS = 60_000;
const LOG_TAIL_CHARS = 2000;
/** Who asks comes before who learns, where both have the same processors. */
const BEHIND_SERVING = ['nice', '-n', '10'];

export interface ProcessLauncherOptions {
  /** The trainer's Python; empty: the one that `dataDir/trainer-env.json` names once it is installed. */
  python: string;
  dataDir: string;
  /** Processes that share a run's models out; 1 where it is left out, empty: the trainer decides. */
  processes?: number | '';
  /** What Python runs in front of the folder; another program in tests. */
  command?: string[];
  killAfterMs?: number;
  /** How long a run waits for somebody to begin with the environment. */
  begunWithinMs?: number;
}

export class ProcessLauncher implements Launcher {
  constructor(private readonly options: ProcessLauncherOptions) {}

  start(folder: string, onProgress: (progress: RunProgress) => void): RunningTrainer {
    const attempt = new Attempt(this.options, folder, onProgress);
    // A child does not outlive its parent: the next process resumes in the folder.
    return { done: attempt.done, stop: () => attempt.stop(), release: () => attempt.stop() };
  }

  end(folder: string): Promise<void> {
    return endTrainerOf(folder);
  }
}

class Attempt {
  readonly done: Promise<RunResult>;
  private stopping = false;
  private child: ChildProcess | null = null;
  private killTimer: NodeJS.Timeout | undefined;

  constructor(
    private readonly options: ProcessLauncherOptions,
    private readonly folder: string,
    private readonly onProgress: (progress: RunProgress) => void,
  ) {
    this.done = this.run().catch((error: unknown) => failure('ENVIRONMENT', String(error)));
  }

  async stop(): Promise<void> {
    if (!this.stopping) {
      this.stopping = true;
      this.child?.kill('SIGTERM');
      this.killTimer = setTimeout(() => this.child?.kill('SIGKILL'), this.options.killAfterMs ?? 10_000);
    }
    await this.done;
  }

  private async run(): Promise<RunResult> {
    const python = await this.waitForPython();
    if (typeof python !== 'string') return python;
    await endTrainerOf(this.folder);
    await clearResult(this.folder);
    if (this.stopping) return failure('STOPPED', 'stopped before it began');
    const tail = new ProgressTail(path.join(this.folder, PROGRESS_FILE), this.onProgress);
    try {
      return await this.outcomeOf(await this.execute(python));
    } finally {
      tail.close();
      clearTimeout(this.killTimer);
      rmSync(path.join(this.folder, PID_FILE), { force: true });
    }
  }

  private async execute(python: string): Promise<string> {
    const log = openSync(path.join(this.folder, LOG_FILE), 'a');
    const command = [python, ...(this.options.command ?? runCommand(this.options.processes ?? 1)), this.folder];
    const [program = python, ...rest] = [...diesWithParent(), ...WITHOUT_TRIMMING, ...BEHIND_SERVING, ...command];
    try {
      const child = spawn(program, rest, {
        cwd: trainerFolder(),
        stdio: ['ignore', log, log],
        env: childEnvironment(),
      });
      this.child = child;
      const ended = new Promise<string>((resolve, reject) => {
        child.once('error', reject);
        child.once('exit', (code, signal) => resolve(code === null ? `signal ${signal}` : `exit status ${code}`));
      });
      if (child.pid !== undefined) writeFileSync(path.join(this.folder, PID_FILE), String(child.pid));
      return await ended;
    } finally {
      closeSync(log);
    }
  }

  private async outcomeOf(ended: string): Promise<RunResult> {
    const result = await readResult(this.folder);
    if (result?.ok && ended === 'exit status 0') return result;
    if (this.stopping) return failure('STOPPED', `the trainer was stopped (${ended})`);
    if (result && !result.ok) return result;
    return failure('CRASHED', `the trainer ended without a result (${ended}): ${this.logTail()}`);
  }

  private logTail(): string {
    return readFileSync(path.join(this.folder, LOG_FILE), 'utf8').slice(-LOG_TAIL_CHARS).trim();
  }

  /** The environment is installed behind the running service; a run asked for earlier waits for it. */
  private async waitForPython(): Promise<string | RunResult> {
    if (this.options.python) return this.options.python;
    const since = performance.now();
    for (;;) {
      const environment = await readEnvironment(this.options.dataDir);
      if (environment?.state === 'ready' && environment.python) return environment.python;
      if (environment?.state === 'failed') return failure('ENVIRONMENT', environment.message ?? 'not installed');
      const waitedMs = performance.now() - since;
      if (environment === null && waitedMs > (this.options.begunWithinMs ?? BEGUN_WITHIN_MS)) {
        return failure('ENVIRONMENT', lackOf(null));
      }
      if (this.stopping) return failure('STOPPED', 'stopped while waiting for the trainer environment');
      this.onProgress({ at: new Date().toISOString(), stage: 'waiting for the trainer environment', progress: 0 });
      await sleep(ENVIRONMENT_POLL_MS);
    }
  }
}

/** Ends the trainer that an earlier service, killed where the kernel could not tell its child, left at this folder. */
async function endTrainerOf(folder: string): Promise<void> {
  const file = path.join(folder, PID_FILE);
  if (!existsSync(file)) return;
  const pid = Number(readFileSync(file, 'utf8'));
  const isTrainer = (): boolean => pid > 1 && commandLineOf(pid).includes(folder);
  while (isTrainer()) {
    process.kill(pid, 'SIGKILL');
    await sleep(50);
  }
  rmSync(file, { force: true });
}

/** Empty where there is no such process (or it is a zombie, which has no command line any more). */
function commandLineOf(pid: number): string {
  if (existsSync('/proc/self/cmdline')) {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    } catch {
      return '';
    }
  }
  return spawnSync('ps', ['-o', 'args=', '-p', String(pid)], { encoding: 'utf8' }).stdout;
}

function runCommand(processes: number | ''): string[] {
  return ['-m', 'fewloop_trainer', 'run', '--parent', String(process.pid), ...processOptions(processes)];
}

let setpriv: string[] | null = null;

/**
 * SIGKILL, not SIGTERM: the service that starts next takes the folder over at once, and a trainer that still
 * tidies up would write into it. A killed run's folder is one to resume from.
 */
function diesWithParent(): string[] {
  setpriv ??=
    spawnSync('setpriv', ['--pdeathsig', 'KILL', '--', 'true']).status === 0
      ? ['setpriv', '--pdeathsig', 'KILL', '--']
      : [];
  return setpriv;
}

function failure(code: string, message: string): RunResult {
  return { ok: false, code, message };
}
