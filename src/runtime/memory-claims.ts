/**
 * What each process of a machine holds of the memory that all model hosts together may take: a file each, in a folder
 * that they share, with the time at which it was last said. Nothing is locked: who wants more says so first and looks at
 * the others then, so that of two at once at least one sees the other, and together they never take what is not there.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, totalmem } from 'node:os';
import path from 'node:path';

interface Claim {
  /** Milliseconds of the machine's clock. */
  at: number;
  bytes: number;
  /** It was refused room: who holds more than a fair share is to give some back. */
  wants: boolean;
}

const TELL_EVERY_MS = 2_000;
/** A process that ends without a word takes its hosts with it. */
const STALE_MS = 15_000;
const WANTED_MS = 3 * TELL_EVERY_MS;

export class MemoryClaims {
  readonly #file: string;
  readonly #timer: NodeJS.Timeout;
  #bytes = 0;
  #refusedAt = -Infinity;
  #closed = false;

  /** `folder`: of this machine alone. `asked`: another wants room, and this process holds more than its share. */
  constructor(
    private readonly folder: string,
    private readonly asked: () => void = () => {},
  ) {
    mkdirSync(folder, { recursive: true });
    this.#file = `${crypto.randomUUID()}.json`;
    this.#timer = setInterval(() => this.#tell(), TELL_EVERY_MS).unref();
  }

  /** Says that this process holds so many bytes, or is about to. */
  hold(bytes: number): void {
    this.#bytes = bytes;
    this.#say();
  }

  /** Says that there was no room. For some seconds: whoever was refused asks again, or wants it no more. */
  want(): void {
    this.#refusedAt = Date.now();
    this.#say();
  }

  /** What the others hold. */
  get others(): number {
    return this.#others().reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Whether this process holds more than an equal share, or there is no other. */
  get mayGive(): boolean {
    return this.#mayGive(this.#others());
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
    rmSync(path.join(this.folder, this.#file), { force: true });
  }

  #tell(): void {
    this.#say();
    const others = this.#others();
    if (others.some(({ wants }) => wants) && this.#mayGive(others)) this.asked();
  }

  #mayGive(others: Claim[]): boolean {
    if (others.length === 0) return true;
    return this.#bytes > others.reduce((sum, { bytes }) => sum + bytes, this.#bytes) / (others.length + 1);
  }

  /** On a disk that is full or gone each process goes by what it holds itself. */
  #say(): void {
    if (this.#closed) return;
    const file = path.join(this.folder, this.#file);
    const at = Date.now();
    const claim: Claim = { at, bytes: this.#bytes, wants: at - this.#refusedAt < WANTED_MS };
    try {
      writeFileSync(`${file}.partial`, JSON.stringify(claim));
      renameSync(`${file}.partial`, file);
    } catch {
      rmSync(`${file}.partial`, { force: true });
    }
  }

  #others(): Claim[] {
    let names: string[];
    try {
      names = readdirSync(this.folder);
    } catch {
      return [];
    }
    return names.flatMap((name) => {
      if (!name.endsWith('.json') || name === this.#file) return [];
      const file = path.join(this.folder, name);
      let claim: Claim;
      try {
        claim = JSON.parse(readFileSync(file, 'utf8')) as Claim;
      } catch {
        return []; // it has just ended
      }
      if (Date.now() - claim.at <= STALE_MS) return [claim];
      rmSync(file, { force: true });
      return [];
    });
  }
}

/**
 * Where the processes of this machine that have `dataDir` in common tell each other; null where this one has a limit of
 * its own (a container's), so that what others take is not its matter.
 */
export function claimsFolder(dataDir: string): string | null {
  const limit = process.constrainedMemory();
  if (limit > 0 && limit < totalmem()) return null;
  return path.join(dataDir, 'model-memory', machineName());
}

/** The same in every container of one running machine, where there are containers. */
function machineName(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return hostname();
  }
}
