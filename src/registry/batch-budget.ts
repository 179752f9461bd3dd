/**
 * How many padded tokens a batch may have: measured, because it is a matter of the machine's caches. On a CPU small
 * batches are fastest, on a GPU large ones. Measured once for each base model, precision and machine, on the first
 * model that is opened, and kept in the data folder; `FEWLOOP_MAX_BATCH_TOKENS` sets it instead.
 */
import { Inject, Injectable, Logger } from '@nestjs/common';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { Config } from '../config/config.js';
import type { GraphRunner, HostBatch } from '../inference/types.js';

/** Where nothing has been measured. */
export const UNMEASURED_BATCH_TOKENS = 512;

const SMALLEST = 256;
const LARGEST = { cpu: 4096, cuda: 65_536 };
/** About a review or a title with its template. */
const ROW_TOKENS = 32;
const ROUNDS = 3;
/** A larger budget makes answers wait longer: it has to be worth that. */
const WORTH = 1.05;
/** Below this share of the best rate no larger budget is tried. */
const HOPELESS = 0.8;

export interface Measured {
  batchTokens: number;
  tokensPerSecond: number;
}

/**
 * Tokens a second at budgets that double, `hosts` batches at a time, the best of three rounds each; ends where larger
 * ones have become clearly slower.
 */
export async function measureBudgets(
  runner: GraphRunner,
  graph: string,
  hosts: number,
  largest: number,
  nowMs = () => performance.now(),
): Promise<Measured[]> {
  const found: Measured[] = [];
  for (let batchTokens = SMALLEST; batchTokens <= largest; batchTokens *= 2) {
    const batch = blankBatch(graph, batchTokens / ROW_TOKENS);
    let bestMs = Number.POSITIVE_INFINITY;
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const startedMs = nowMs();
        await Promise.all(Array.from({ length: hosts }, async () => runner.run(batch)));
        bestMs = Math.min(bestMs, nowMs() - startedMs);
      }
    } catch (error) {
      if (found.length === 0) throw error;
      break; // as a device does that has no memory for more
    }
    const tokensPerSecond = (1000 * hosts * batchTokens) / Math.max(0.01, bestMs);
    found.push({ batchTokens, tokensPerSecond });
    if (tokensPerSecond < HOPELESS * Math.max(...found.map((other) => other.tokensPerSecond))) break;
  }
  return found;
}

/** The smallest budget that no other beats by what a longer wait is worth. */
export function chooseBudget(measured: Measured[]): number {
  const best = Math.max(...measured.map(({ tokensPerSecond }) => tokensPerSecond));
  return measured.find(({ tokensPerSecond }) => tokensPerSecond * WORTH >= best)!.batchTokens;
}

@Injectable()
export class BatchBudgets {
  readonly #log = new Logger(BatchBudgets.name);
  readonly #file: string;
  /** Measurements follow each other: two at a time would measure each other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(@Inject(Config) private readonly config: Config) {
    this.#file = join(config.dataDir, 'batch-budgets.json');
  }

  /** For graphs of this kind (base model and precision); `runner` has `graph` open and nothing else to do with it. */
  budgetOf(kind: string, runner: GraphRunner, graph: string): Promise<number> {
    const { maxBatchTokens } = this.config;
    if (maxBatchTokens !== '') return Promise.resolve(maxBatchTokens);
    const found = this.#last.then(() => this.#find(kind, runner, graph));
    this.#last = found.catch(() => undefined);
    return found;
  }

  /** Tokens a second of such graphs at their best budget, where that has been measured on this machine. */
  async rateOf(kind: string): Promise<number | undefined> {
    const measured = (await this.#read())[this.#key(kind)];
    return measured && Math.max(...measured.map(({ tokensPerSecond }) => tokensPerSecond));
  }

  async #find(kind: string, runner: GraphRunner, graph: string): Promise<number> {
    const { device, hosts } = this.config;
    const key = this.#key(kind);
    const known = await this.#read();
    if (known[key]) return chooseBudget(known[key]);
    const largest = device === 'cpu' ? LARGEST.cpu : LARGEST.cuda;
    const measured = await measureBudgets(runner, graph, hosts, largest);
    await this.#write({ ...known, [key]: measured });
    const rates = measured.map((one) => `${one.batchTokens}: ${Math.round(one.tokensPerSecond)}`).join(', ');
    this.#log.log(`batches of ${chooseBudget(measured)} tokens (tokens a second by tokens of a batch: ${rates})`);
    return chooseBudget(measured);
  }

  #key(kind: string): string {
    const { device, hosts, hostThreads } = this.config;
    const machine = [cpus()[0]?.model ?? '', `${availableParallelism()} cores`, device, `${hosts}x${hostThreads}`];
    return [kind, ...machine].join(' | ');
  }

  /** What cannot be read is measured again. */
  async #read(): Promise<Record<string, Measured[]>> {
    try {
      return JSON.parse(await readFile(this.#file, 'utf8')) as Record<string, Measured[]>;
    } catch {
      return {};
    }
  }

  async #write(budgets: Record<string, Measured[]>): Promise<void> {
    await mkdir(dirname(this.#file), { recursive: true });
    const partial = `${this.#file}.${process.pid}.partial`;
    await writeFile(partial, JSON.stringify(budgets, null, 2));
    await rename(partial, this.#file);
  }
}

/** Rows whose ids do not matter. Graphs that take no masks and no words are given none of these by their host. */
function blankBatch(graph: string, rows: number): HostBatch {
  const length = ROW_TOKENS;
  return {
    graph,
    rows,
    length,
    masks: 1,
    words: 2,
    inputIds: new BigInt64Array(rows * length).fill(1n),
    attentionMask: new BigInt64Array(rows * length).fill(1n),
    tokenTypeIds: new BigInt64Array(rows * length),
    maskPositions: new BigInt64Array(rows),
    labelTokens: new BigInt64Array(rows * 2),
  };
}
