/**
 * How many padded tokens a batch may have: measured, because it is a matter of the machine's caches. On a CPU small
 * batches are fastest, on a GPU large ones. Measured once for each base model, precision and machine, on the first
 * model that is opened, and kept in the data folder; `FEWLOOP_MAX_BATCH_TOKENS` sets it instead.
 */
import { Inject, Injectable, Logger } from '@nestjs/common';
import { join } from 'node:path';
import { Config } from '../config/config.js';
import { MAX_ROWS } from '../inference/shapes.js';
import type { GraphRunner } from '../inference/types.js';
import { isGpu } from '../common/devices.js';
import { HostLayout } from './host-layout.js';
import { machine } from './machine.js';
import { blankBatch, KeptMeasurements, ROW_TOKENS } from './measurements.js';

/** Where nothing has been measured. */
export const UNMEASURED_BATCH_TOKENS = 512;

const SMALLEST = 256;
const LARGEST = { cpu: 4096, cuda: 65_536 };
const ROUNDS = 3;
/** A larger budget makes answers wait longer and pads more, and measurements of a busy machine differ by a tenth. */
const WORTH = 1.15;
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
    // Batches end at so many rows: what fills more than those has longer ones.
    const rows = Math.min(MAX_ROWS, batchTokens / ROW_TOKENS);
    const batch = blankBatch(graph, rows, batchTokens / rows);
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
  readonly #kept: KeptMeasurements<Measured[]>;
  /** It does not change while a process runs. */
  #machine: Promise<string> | undefined;
  /** Measurements follow each other: two at a time would measure each other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(HostLayout) private readonly layout: HostLayout,
  ) {
    this.#kept = new KeptMeasurements(join(config.dataDir, 'batch-budgets.json'));
  }

  /** Whether nothing is left to measure for such graphs. */
  async isKnown(kind: string): Promise<boolean> {
    return this.config.maxBatchTokens !== '' || (await this.#kept.of(await this.#key(kind))) !== undefined;
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
    const measured = await this.#kept.of(await this.#key(kind));
    return measured && Math.max(...measured.map(({ tokensPerSecond }) => tokensPerSecond));
  }

  async #find(kind: string, runner: GraphRunner, graph: string): Promise<number> {
    const key = await this.#key(kind);
    const known = await this.#kept.of(key);
    if (known) return chooseBudget(known);
    const largest = isGpu(this.config.device) ? LARGEST.cuda : LARGEST.cpu;
    const measured = await measureBudgets(runner, graph, this.layout.hosts, largest);
    await this.#kept.keep(key, measured);
    const rates = measured.map((one) => `${one.batchTokens}: ${Math.round(one.tokensPerSecond)}`).join(', ');
    this.#log.log(`batches of ${chooseBudget(measured)} tokens (tokens a second by tokens of a batch: ${rates})`);
    return chooseBudget(measured);
  }

  async #key(kind: string): Promise<string> {
    const { hosts, threads } = this.layout;
    this.#machine ??= machine(this.config.device);
    return [kind, await this.#machine, `${hosts}x${threads}`].join(' | ');
  }
}
