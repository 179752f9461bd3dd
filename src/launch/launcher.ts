/** How a run is started: as a child process here (process.ts), as a Kubernetes Job where the service runs in one. */
import type { RunProgress, RunResult } from './run-folder.js';

export interface RunningTrainer {
  /**
   * Settles once the trainer is gone and never rejects. `code` of a failure is the trainer's own, or
   * CRASHED (ended without a result: worth another try), STOPPED (asked to), ENVIRONMENT (cannot be started).
   */
  done: Promise<RunResult>;
  /** Asks the trainer to stop, then makes it; resolves when it is gone. */
  stop(): Promise<void>;
}

export interface Launcher {
  start(folder: string, onProgress: (progress: RunProgress) => void): RunningTrainer;
}

/** Token of the one that this process uses. */
export const LAUNCHER = Symbol('launcher');
