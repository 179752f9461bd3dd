/** Follows progress.jsonl while a trainer writes it. Starts at the file's end: a resumed run does not go back. */
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';

import { parseProgress, type RunProgress } from './run-folder.js';

const POLL_MS = 200;

export class ProgressTail {
  private offset: number;
  private rest = '';
  private readonly decoder = new StringDecoder('utf8');
  private readonly timer: NodeJS.Timeout;

  constructor(
    private readonly file: string,
    private readonly onProgress: (progress: RunProgress) => void,
  ) {
    this.offset = sizeOf(file);
    this.timer = setInterval(() => this.read(), POLL_MS);
  }

  /** Reads what is left and ends. */
  close(): void {
    clearInterval(this.timer);
    this.read();
  }

  private read(): void {
    const size = sizeOf(this.file);
    if (size < this.offset) this.offset = 0;
    if (size === this.offset) return;
    const bytes = Buffer.alloc(size - this.offset);
    const descriptor = openSync(this.file, 'r');
    const count = readSync(descriptor, bytes, 0, bytes.length, this.offset);
    closeSync(descriptor);
    this.offset += count;
    const lines = (this.rest + this.decoder.write(bytes.subarray(0, count))).split('\n');
    this.rest = lines.pop() ?? '';
    for (const line of lines) {
      const progress = parseProgress(line);
      if (progress) this.onProgress(progress);
    }
  }
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}
