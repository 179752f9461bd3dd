/**
 * Long files into the service: rows leave in requests of a bounded size while the file is read, each taken as a whole or
 * not at all. How far it got is kept on disk, so that the same command goes on where it was ended; where it cannot be kept
 * (a home that is read-only), sending goes on without.
 */
import {
  accessSync,
  appendFileSync,
  constants,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createHash } from 'node:crypto';
import { homedir } from 'node:os';
import path from 'node:path';
import { type Client, patiently } from './client.js';
import type { Entry } from './formats/records.js';
import type { Source } from './formats/sources.js';
import { progress, say } from './output.js';

/** Under the service's limits of texts and bytes. */
const CHUNK_ROWS = 500;
const CHUNK_CHARACTERS = 1_000_000;
/** Kept for who reads the result; `--rejects` has all. */
const REJECTIONS = 1000;

export interface Rejection {
  line: number;
  code: string;
  message: string;
}

export interface Sent {
  counts: Record<string, number>;
  /** The first of them. */
  rejected: Rejection[];
  rejectedCount: number;
  /** Entries of the file that an earlier call had sent. */
  resumedAfter: number;
}

export interface Sending {
  client: Client;
  task: string;
  /** Answers `result { NAMES rejected { index code message } }`. */
  mutation: string;
  /** What `result` counts. */
  names: readonly string[];
  source: Source;
  read: (onRead: (bytes: number) => void) => AsyncIterable<Entry<object>>;
  /** What else decides what is sent: a file that is sent otherwise begins anew. */
  how: unknown;
  restart: boolean;
  /** A file for all rejections, a JSON object a line. */
  rejects: string | undefined;
}

interface Checkpoint {
  entries: number;
  counts: Record<string, number>;
  rejected: Rejection[];
  rejectedCount: number;
}

type ChunkResult = Record<string, number> & { rejected: { index: number; code: string; message: string }[] };

export async function send(sending: Sending): Promise<Sent> {
  const { client, task, mutation, names, source, read, rejects } = sending;
  const file = checkpointFile(sending);
  const keeper = keeperOf(file);
  if (sending.restart) keeper.forget();
  const known = sending.restart ? null : readCheckpoint(file);
  const state = known ?? {
    entries: 0,
    counts: Object.fromEntries(names.map((name) => [name, 0])),
    rejected: [],
    rejectedCount: 0,
  };
  const resumedAfter = state.entries;
  if (rejects !== undefined && !known) writeFileSync(rejects, '');
  const bar = progress(source.size, '');
  let bytes = 0;
  const reject = (found: Rejection[]) => {
    state.rejectedCount += found.length;
    state.rejected.push(...found.slice(0, REJECTIONS - state.rejected.length));
    if (rejects !== undefined && found.length > 0)
      appendFileSync(rejects, found.map((one) => `${JSON.stringify(one)}\n`).join(''));
  };
  const ending = onEnded(() =>
    say(`ended after ${state.entries} entries: the same command ${keeper.keeps() ? 'goes on there' : 'begins anew'}`),
  );
  try {
    for await (const chunk of chunksOf(
      skip(
        read((count) => (bytes = count)),
        resumedAfter,
      ),
    )) {
      const rows = chunk.flatMap((entry) => ('value' in entry ? [entry] : []));
      const refused = chunk.flatMap((entry) =>
        'error' in entry ? [{ line: entry.line, code: 'BAD_INPUT', message: entry.error }] : [],
      );
      if (rows.length > 0) {
        const variables = { task, rows: rows.map(({ value }) => value) };
        const { result } = await patiently(
          () => client.request<{ result: ChunkResult }>(mutation, variables),
          (seconds) => bar.update(bytes, `the service is busy, asking again in ${seconds} s`),
        );
        for (const name of names) state.counts[name]! += result[name] ?? 0;
        refused.push(
          ...result.rejected.map(({ index, code, message }) => ({ line: rows[index]!.line, code, message })),
        );
      }
      reject(refused.toSorted((a, b) => a.line - b.line));
      state.entries += chunk.length;
      keeper.keep(state);
      bar.count(bytes, `${state.entries} rows`);
    }
  } finally {
    ending.forget();
    bar.stop();
  }
  keeper.forget();
  return { ...state, resumedAfter };
}

/** What is told where a signal ends the process, which then ends by it. */
function onEnded(tell: () => void): { forget(): void } {
  const forget = () => void process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  const onSignal = (signal: NodeJS.Signals) => {
    forget();
    tell();
    process.kill(process.pid, signal);
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  return { forget };
}

async function* skip<T>(entries: AsyncIterable<T>, count: number): AsyncGenerator<T> {
  let passed = 0;
  for await (const entry of entries) if (passed++ >= count) yield entry;
}

async function* chunksOf<T>(entries: AsyncIterable<Entry<T>>): AsyncGenerator<Entry<T>[]> {
  let chunk: Entry<T>[] = [];
  let characters = 0;
  for await (const entry of entries) {
    const size = 'value' in entry ? JSON.stringify(entry.value).length : 0;
    if (chunk.length > 0 && (chunk.length >= CHUNK_ROWS || characters + size > CHUNK_CHARACTERS)) {
      yield chunk;
      chunk = [];
      characters = 0;
    }
    chunk.push(entry);
    characters += size;
  }
  if (chunk.length > 0) yield chunk;
}

/** Of this very file (place, size and time of its last change), service, task and way of sending. */
function checkpointFile({ client, task, mutation, source, how }: Sending): string {
  const { size, mtimeMs } = statSync(source.path);
  const digest = createHash('sha256').update(
    JSON.stringify([client.url, task, mutation, path.resolve(source.path), size, mtimeMs, how]),
  );
  const state = process.env['XDG_STATE_HOME'] || path.join(homedir(), '.local', 'state');
  return path.join(state, 'fewloop', 'sending', `${digest.digest('hex').slice(0, 32)}.json`);
}

function readCheckpoint(file: string): Checkpoint | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Checkpoint;
  } catch {
    return null;
  }
}

interface Keeper {
  keep(state: Checkpoint): void;
  forget(): void;
  /** Whether it could so far. */
  keeps(): boolean;
}

/** Tries the folder at once, so that a failure is told before anything is sent; it is told once, and nothing kept since. */
function keeperOf(file: string): Keeper {
  let able = true;
  const attempt = (work: () => void) => {
    try {
      work();
    } catch (error) {
      if (able)
        say(`how far this gets is not kept: ended in the middle, it is sent anew (${(error as Error).message})`);
      able = false;
    }
  };
  attempt(() => {
    mkdirSync(path.dirname(file), { recursive: true });
    accessSync(path.dirname(file), constants.W_OK);
  });
  return {
    keep(state) {
      if (!able) return;
      attempt(() => {
        writeFileSync(`${file}.partial`, JSON.stringify(state));
        renameSync(`${file}.partial`, file);
      });
    },
    keeps: () => able,
    forget: () => attempt(() => rmSync(file, { force: true })),
  };
}
