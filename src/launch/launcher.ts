/** How a run is started: as a child process (process.ts), or as a Kubernetes Job (kubernetes.ts). */
import type { RunProgress, RunResult } from './run-folder.js';

export interface RunningTrainer {
  /**
   * Settles once the trainer is gone and never rejects. `code` of a failure is the trainer's own, or
   * CRASHED (ended, or a process of it, without a result: worth another try), STOPPED (asked to), ENVIRONMENT
   * (cannot be started), OUT_OF_MEMORY and DEADLINE_EXCEEDED (it had what the settings allow).
   */
  done: Promise<RunResult>;
  /** Asks the trainer to stop, then makes it; resolves when it is gone. */
  stop(): Promise<void>;
  /**
   * This process looks after the run no longer; whoever does next calls `start` for the same folder. A trainer that
   * can go on alone goes on, and is found again; others stop. Resolves once `done` has.
   */
  release(): Promise<void>;
}

export interface Launcher {
  /** Where a trainer is at work in the folder already, it is taken over or ended first: there is at most one. */
  start(folder: string, onProgress: (progress: RunProgress) => void): RunningTrainer;
  /** Ends the trainer that an earlier process may have left at the folder of a run that is over. */
  end(folder: string): Promise<void>;
}

/** Token of the one that this process uses. */
export const LAUNCHER = Symbol('launcher');
