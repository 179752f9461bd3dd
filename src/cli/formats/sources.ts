/**
 * Files as they are read: piece by piece, so that a file of any size takes little memory. What is read of them are
 * lines, or objects, one after the other.
 */
import { JSONParser } from '@streamparser/json';
import { createReadStream, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { Failure } from '../client.js';
import { type Entry, isObject, type JsonObject, parseObject } from './records.js';

export interface Source {
  path: string;
  /** Bytes. */
  size: number;
  /** The first bytes, as far as they are characters. */
  head(): Promise<string>;
  /** From the start, without a byte-order mark; each call reads anew. `onRead`: how many bytes have been. */
  chunks(onRead?: (bytes: number) => void): AsyncIterable<string>;
}

/** What is longer than that is no text of ours, and no file that can be read in pieces. */
const LONGEST_ENTRY = 32 * 2 ** 20;

export function fileSource(path: string): Source {
  const unreadable = (error: unknown) => new Failure(`cannot read ${path}: ${(error as Error).message}`);
  let size;
  try {
    const stat = statSync(path);
    if (stat.isDirectory()) throw new Error('it is a folder');
    ({ size } = stat);
  } catch (error) {
    throw unreadable(error);
  }
  async function* chunks(onRead?: (bytes: number) => void): AsyncGenerator<string> {
    try {
      yield* decoded(createReadStream(path), path, onRead);
    } catch (error) {
      throw error instanceof Failure ? error : unreadable(error);
    }
  }
  const head = async () => {
    const file = await open(path);
    const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(4096), position: 0 });
    await file.close();
    return new TextDecoder().decode(buffer.subarray(0, bytesRead));
  };
  return { path, size, head, chunks };
}

/** As Source has it. `name`: for people. Throws Failure where it is not UTF-8. */
export async function* decoded(
  pieces: AsyncIterable<Buffer>,
  name: string,
  onRead?: (bytes: number) => void,
): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const decode = (piece?: Buffer) => {
    try {
      return decoder.decode(piece, { stream: piece !== undefined });
    } catch {
      throw new Failure(`${name} is not UTF-8: save it as UTF-8 (in Excel: CSV UTF-8) and try again`);
    }
  };
  let bytes = 0;
  for await (const piece of pieces) {
    onRead?.((bytes += piece.length));
    yield decode(piece);
  }
  yield decode();
}

/** Lines end in \n alone (or \r\n): U+2028 and its like are characters of a text. Empty lines are left out. */
export async function* linesIn(chunks: AsyncIterable<string>): AsyncGenerator<{ line: number; value: string }> {
  let line = 0;
  let rest: string[] = [];
  let length = 0;
  const whole = (end: string) => {
    const value = [...rest, end].join('');
    rest = [];
    length = 0;
    return value.endsWith('\r') ? value.slice(0, -1) : value;
  };
  for await (const chunk of chunks) {
    let from = 0;
    for (let at = chunk.indexOf('\n'); at >= 0; at = chunk.indexOf('\n', from)) {
      const value = whole(chunk.slice(from, at));
      line += 1;
      from = at + 1;
      if (value.trim() !== '') yield { line, value };
    }
    rest.push(chunk.slice(from));
    length += chunk.length - from;
    if (length > LONGEST_ENTRY) throw new Failure(`line ${line + 1} is longer than ${LONGEST_ENTRY} characters`);
  }
  const value = whole('');
  if (value.trim() !== '') yield { line: line + 1, value };
}

/** A JSON array of objects, or an object a line: tools export either. */
export async function* objectsIn(source: Source, onRead?: (bytes: number) => void): AsyncGenerator<Entry<JsonObject>> {
  if (await startsWithBracket(source)) {
    yield* arrayEntries(source.chunks(onRead));
    return;
  }
  for await (const { line, value } of linesIn(source.chunks(onRead))) {
    let object;
    try {
      object = parseObject(value);
    } catch (error) {
      yield { line, error: (error as Error).message };
      continue;
    }
    yield { line, value: object };
  }
}

/** Whether the file is one JSON array. */
async function startsWithBracket(source: Source): Promise<boolean> {
  for await (const chunk of source.chunks()) {
    const first = chunk.trimStart();
    if (first !== '') return first.startsWith('[');
  }
  return false;
}

/** What cannot be read ends the array: nothing behind it has a place. */
async function* arrayEntries(chunks: AsyncIterable<string>): AsyncGenerator<Entry<JsonObject>> {
  const parser = new JSONParser({ paths: ['$.*'], keepStack: false });
  // Its own decoder takes U+FEFF for a byte-order mark within strings too, escaped or not, and leaves it out.
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  Object.assign(parser['tokenizer']['bufferedString'], { decoder });
  let found: unknown[] = [];
  let line = 0;
  let length = 0;
  let failure: Error | undefined;
  parser.onValue = ({ value }) => void found.push(value);
  parser.onError = (error) => (failure ??= error);
  for await (const chunk of chunks) {
    try {
      if (!parser.isEnded || chunk.trim() !== '') parser.write(chunk);
    } catch (error) {
      failure ??= error as Error;
    }
    length = found.length > 0 ? chunk.length : length + chunk.length;
    for (const value of found) {
      line += 1;
      if (isObject(value)) yield { line, value };
      else yield { line, error: 'is no JSON object' };
    }
    found = [];
    if (length > LONGEST_ENTRY) failure ??= new Error(`it is longer than ${LONGEST_ENTRY} characters`);
    if (failure) break;
  }
  if (!failure && !parser.isEnded) failure = new Error('the array does not end');
  if (failure) yield { line: line + 1, error: `from here on the file cannot be read: ${failure.message}` };
}
