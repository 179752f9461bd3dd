/** Where the trainer's code is, which Python runs it, and how that is started. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';

/** What `scripts/trainer-env.mjs` says of the environment that it installs: `installing`, `ready` or `failed`. */
export interface TrainerEnvironment {
  state: string;
  python?: string;
  message?: string;
}

/** Null where nobody has begun to install it. */
export async function readEnvironment(dataDir: string): Promise<TrainerEnvironment | null> {
  try {
    return JSON.parse(await readFile(path.join(dataDir, 'trainer-env.json'), 'utf8')) as TrainerEnvironment;
  } catch {
    return null;
  }
}

/** What is wrong with an environment that is not ready, and how to come by one. */
export function lackOf(environment: TrainerEnvironment | null): string {
  const state = environment?.message ?? environment?.state ?? 'not installed';
  return `the trainer's Python environment: ${state}. \`npm start\` or \`node scripts/trainer-env.mjs\` installs it; FEWLOOP_PYTHON names another`;
}

/**
 * In front of a command. The service asks glibc to give freed memory back at once; a trainer takes it again at every
 * step, and that takes it half of its time (0.29 in place of 0.14 s a step).
 */
export const WITHOUT_TRIMMING = ['env', '-u', 'MALLOC_TRIM_THRESHOLD_'];

/** Options of the command `run` for so many processes; empty: the trainer decides where it runs. */
export function processOptions(processes: number | ''): string[] {
  return processes === 1 ? [] : ['--processes', processes === '' ? 'auto' : String(processes)];
}

/** `trainer/` of the checkout, found from here upwards: this file runs from src/ and from dist/. */
export function trainerFolder(): string {
  let folder = import.meta.dirname;
  while (!existsSync(path.join(folder, 'trainer', 'fewloop_trainer'))) {
    const parent = path.dirname(folder);
    if (parent === folder) throw new Error('the folder of fewloop_trainer is not beside the service');
    folder = parent;
  }
  return path.join(folder, 'trainer');
}
