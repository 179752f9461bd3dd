/** The few-shot benchmark on FewCLUE's files: the trainer's own command, started here. Needs no service. */
import type { Command } from 'commander';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { Config } from '../../config/config.js';
import { lackOf, readEnvironment, trainerFolder, WITHOUT_TRIMMING } from '../../launch/trainer-program.js';
import { Failure } from '../client.js';

/** Longer than the trainer takes to stop by itself. */
const KILL_AFTER_MS = 10_000;

/** As written: the trainer reads them. */
type BenchmarkOptions = Record<string, string | true>;

export function benchmarkCommand(program: Command): void {
  program
    .command('benchmark <data_dir>')
    .description("methods on FewCLUE's few-shot tasks, in a table; needs no service, and goes on where it was ended")
    .option('--tasks <names>', 'eprstmt,bustm,…; all where none are named')
    .option('--methods <names>', 'zero-shot,pet,fine-tune,full,tf-idf,setfit,…; all where none are named')
    .option('--splits <names>', '0 to 4, and all: the five train splits together (default: 0,1,2,3,4)')
    .option('--seeds <numbers>', 'whole numbers (default: 0)')
    .option('--base <folder>', 'base model (default: FEWLOOP_BASE_MODEL)')
    .option('--task-files <folder>', 'a file a task (default: examples/fewclue)')
    .option('--work <folder>', 'what a cell goes on from (default: benchmark in the data folder)')
    .option('--cells <folder>', 'finished cells (default: cells in --work)')
    .option('--out <file>', 'the report, Markdown; JSON and plots go beside it')
    .option('--threads <number>', 'part of what results depend on (default: all)')
    .option('--finished', 'a report of finished cells; computes nothing')
    .option('--limit-test <rows>', 'the first test rows alone, for a try')
    .action(benchmark);
}

async function benchmark(dataDir: string, options: BenchmarkOptions, command: Command): Promise<void> {
  const { json } = command.optsWithGlobals<{ json?: boolean }>();
  const config = Config.load();
  const given: BenchmarkOptions = { base: config.baseModel, work: join(config.dataDir, 'benchmark'), ...options };
  const flags = Object.entries(given).flatMap(([name, value]) => [
    `--${kebab(name)}`,
    ...(value === true ? [] : [value]),
  ]);
  const trainer = ['-m', 'fewloop_trainer', 'benchmark', dataDir, ...flags, '--parent', String(process.pid)];
  const python = await findPython(config);
  // The data and reports are named relative to where the user is; the trainer is found all the same.
  const start = [...WITHOUT_TRIMMING, `PYTHONPATH=${trainerFolder()}`, python, ...trainer, ...(json ? ['--json'] : [])];
  const status = await runProgram(start);
  if (status === 126 || status === 127) throw new Failure(`cannot start ${python}`, 'ENVIRONMENT');
  process.exitCode = status;
}

/** Throws a Failure that says how to come by it. */
async function findPython({ python, dataDir }: Config): Promise<string> {
  if (python !== '') return python;
  const environment = await readEnvironment(dataDir);
  if (environment?.state === 'ready' && environment.python !== undefined) return environment.python;
  throw new Failure(lackOf(environment), 'ENVIRONMENT');
}

/** Its exit status. What it prints is the command's own; signals are handed on, and it is waited for. */
async function runProgram([program = '', ...rest]: string[]): Promise<number> {
  const child = spawn(program, rest, { stdio: ['ignore', 'inherit', 'inherit'] });
  let killTimer: NodeJS.Timeout | undefined;
  const stop = (signal: NodeJS.Signals) => {
    child.kill(signal);
    killTimer ??= setTimeout(() => child.kill('SIGKILL'), KILL_AFTER_MS);
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  try {
    return await new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => resolve(code ?? 1));
    });
  } finally {
    clearTimeout(killTimer);
    process.off('SIGINT', stop).off('SIGTERM', stop);
  }
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/gu, (letter) => `-${letter.toLowerCase()}`);
}
