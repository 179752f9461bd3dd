/**
 * Graphs as ONNX Runtime makes them ready for this processor, optimized and with their weights packed, in files that
 * model hosts map: all hosts of a graph, those of other processes too, share one copy of its weights. Made once for each
 * graph and machine, in the data folder. Answers are the same to the bit; a graph that cannot be packed is opened as it is.
 *
 *   FOLDER/<digest of graph, machine and layout>/{model.onnx, weights.bin, digests.json}
 */
import { Logger } from '@nestjs/common';
import { execFile } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { sha256OfFile } from '../common/file-digest.js';
import { alignWeights } from './align-weights.js';
import type { HostGraph } from './protocol.js';

/** Where weights are few, most of a host is not its weights. */
const SMALLEST_BYTES = 4 * 2 ** 20;
const PACK_TIMEOUT_MS = 120_000;
/** A host that maps files keeps them, removed or not, and one that starts anew takes the graph itself. */
const UNUSED_DAYS = 30;
const ABANDONED_DAYS = 1;
/** As pack-graph.ts writes them. */
const MODEL = 'model.onnx';
const WEIGHTS = 'weights.bin';
const DIGESTS = 'digests.json';
/** To be raised where files are made otherwise: those of before are not taken then. */
const LAYOUT = 2;

// Compiled, this file lies beside pack-graph.js; under the test runner beside pack-graph.ts, which Node runs as it is.
const PACK_FILE = fileURLToPath(
  new URL(import.meta.url.endsWith('.ts') ? './pack-graph.ts' : './pack-graph.js', import.meta.url),
);

export class PackedGraphs {
  readonly #log = new Logger(PackedGraphs.name);
  /** Whose bytes have been checked, or are being: by folder. */
  readonly #ready = new Map<string, Promise<boolean>>();
  /** Packing takes a core and as much memory as a host: one graph at a time. */
  #last: Promise<unknown> = Promise.resolve();

  /** `machine`: what decides how ONNX Runtime packs; files of another machine are not taken. */
  constructor(
    private readonly folder: string,
    private readonly machine: string,
  ) {}

  /** The graphs with their packed files, those that have been made now among them. Never throws. */
  async of(graphs: HostGraph[]): Promise<HostGraph[]> {
    const packed: HostGraph[] = [];
    for (const graph of graphs)
      packed.push((await this.#isReady(graph)) ? { ...graph, packed: join(this.#of(graph), MODEL) } : graph);
    return packed;
  }

  #of({ sha256 }: HostGraph): string {
    return join(this.folder, createHash('sha256').update(`${sha256} ${this.machine} ${LAYOUT}`).digest('hex'));
  }

  async #isReady(graph: HostGraph): Promise<boolean> {
    const folder = this.#of(graph);
    let ready = this.#ready.get(folder);
    if (!ready) {
      ready = this.#last.then(() => this.#make(graph, folder));
      this.#last = ready;
      this.#ready.set(folder, ready);
    }
    if (!(await ready)) {
      // What stood in its way, a full disk, may be gone when it is opened again.
      this.#ready.delete(folder);
      return false;
    }
    const now = new Date();
    return utimes(folder, now, now).then(
      () => true,
      () => (this.#ready.delete(folder), false),
    );
  }

  async #make({ path }: HostGraph, folder: string): Promise<boolean> {
    const partial = join(this.folder, `${randomUUID()}.partial`);
    try {
      if ((await stat(path)).size < SMALLEST_BYTES) return false;
      if (await holds(folder)) return true;
      await this.#prune();
      await mkdir(partial, { recursive: true });
      await promisify(execFile)(process.execPath, [PACK_FILE, path, partial], { env: {}, timeout: PACK_TIMEOUT_MS });
      await alignWeights(join(partial, MODEL), join(partial, WEIGHTS));
      await writeFile(join(partial, DIGESTS), JSON.stringify(await digestsOf(partial)));
      // Another process may have been faster; what is there and does not hold is replaced.
      if (await holds(folder)) return true;
      await rm(folder, { recursive: true, force: true });
      await rename(partial, folder);
      return true;
    } catch (error) {
      this.#log.warn(
        `${path} is opened unpacked, each model host with weights of its own: ${(error as Error).message}`,
      );
      return false;
    } finally {
      await rm(partial, { recursive: true, force: true }).catch(() => undefined);
    }
  }

  /** Removes what nobody has opened for long, of other machines and versions too, and what a killed process left. */
  async #prune(): Promise<void> {
    for (const name of await readdir(this.folder).catch(() => [])) {
      const days = name.endsWith('.partial') ? ABANDONED_DAYS : UNUSED_DAYS;
      const at = await stat(join(this.folder, name)).catch(() => undefined);
      const isOld = at !== undefined && Date.now() - at.mtimeMs > days * 86_400_000;
      if (isOld) await rm(join(this.folder, name), { recursive: true, force: true });
    }
  }
}

/** Whether the files are there with the bytes that they were made with. */
async function holds(folder: string): Promise<boolean> {
  try {
    const kept = JSON.parse(await readFile(join(folder, DIGESTS), 'utf8')) as Record<string, string>;
    const actual = await digestsOf(folder);
    return kept[MODEL] === actual[MODEL] && kept[WEIGHTS] === actual[WEIGHTS];
  } catch {
    return false;
  }
}

async function digestsOf(folder: string): Promise<Record<string, string>> {
  return { [MODEL]: await sha256OfFile(join(folder, MODEL)), [WEIGHTS]: await sha256OfFile(join(folder, WEIGHTS)) };
}
