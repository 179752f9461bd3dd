/** Results go to standard output, as JSON where asked for; progress and messages go to standard error. */
import { Presets, SingleBar } from 'cli-progress';
import { Failure } from './client.js';

export function say(message: string): void {
  process.stderr.write(`${message}\n`);
}

/** Of what is no Failure, where it came from too. */
export function sayError(error: unknown): void {
  say(`fewloop: ${messageOf(error)}`);
  if (!(error instanceof Failure) && error instanceof Error && error.stack) say(error.stack);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Of a program that writes when nobody reads any more, as shells tell it of one that SIGPIPE ended. */
const NO_READER = 141;

/** `| head` has what it wanted: that is no failure to tell of. */
export function onOutputError(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
  process.exit(NO_READER);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

/** Columns, aligned; Han characters are two columns wide. */
export function table(header: string[], rows: (string | number | null)[][]): string {
  const cells = [header, ...rows.map((row) => row.map((cell) => String(cell ?? '')))];
  const widths = header.map((_, i) => Math.max(...cells.map((row) => widthOf(row[i] ?? ''))));
  const line = (row: string[]) => row.map((cell, i) => cell + ' '.repeat(widths[i]! - widthOf(cell))).join('  ');
  return cells.map((row) => line(row).trimEnd()).join('\n');
}

function widthOf(text: string): number {
  return Array.from(text).reduce(
    (width, character) =>
      width +
      (/[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/u.test(character)
        ? 2
        : 1),
    0,
  );
}

/** Says so where the work takes longer than people think it would. */
export async function longWork<T>(work: Promise<T>, message: string): Promise<T> {
  const timer = setTimeout(() => say(message), LONG_MS);
  try {
    return await work;
  } finally {
    clearTimeout(timer);
  }
}

export interface Progress {
  update(done: number, stage?: string): void;
  /** How much of long work is done, in words. */
  count(done: number, words: string): void;
  stop(): void;
}

/**
 * A bar on a terminal, which is given back as it was however the process ends; elsewhere a line whenever the stage changes, and one every few seconds of
 * what is counted.
 */
export function progress(total: number, unit: string): Progress {
  if (!process.stderr.isTTY) return plainProgress();
  const format = unit === '' ? '{bar} {percentage}% {stage}' : `{bar} {value}/{total} ${unit} {stage}`;
  const bar = new SingleBar({ format, stream: process.stderr, hideCursor: true }, Presets.shades_classic);
  const stop = () => {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal).off('exit', stop);
    bar.stop();
  };
  const onSignal = (signal: NodeJS.Signals) => {
    stop();
    process.kill(process.pid, signal);
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal).on('exit', stop);
  bar.start(total, 0, { stage: '' });
  return {
    update: (done, stage = '') => bar.update(done, { stage }),
    count: (done, words) => bar.update(done, { stage: words }),
    stop,
  };
}

const COUNT_EVERY_MS = 5000;
const LONG_MS = 5000;

function plainProgress(): Progress {
  let last = '';
  let countedMs = performance.now();
  return {
    update(_, stage = '') {
      if (stage !== '' && stage !== last) say(stage);
      last = stage;
    },
    count(_, words) {
      if (performance.now() - countedMs < COUNT_EVERY_MS) return;
      countedMs = performance.now();
      say(words);
    },
    stop: () => undefined,
  };
}
