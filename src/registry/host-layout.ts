/**
 * How many model hosts a set of graphs has, and how many threads each: what is fastest here, measured with the base
 * model's graph when the process starts, once for each machine and number of hosts that memory allows, and kept in the
 * data folder. `FEWLOOP_HOSTS` and `FEWLOOP_HOST_THREADS` set it instead.
 */
import { Logger } from '@nestjs/common';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../config/config.js';
import { devicesOf, isGpu } from '../common/devices.js';
import { HostGroup } from '../runtime/host-group.js';
import { estimatedBytes } from '../runtime/host-memory.js';
import { fileDigest } from './bundle.js';
import { machine } from './machine.js';
import { blankBatch, KeptMeasurements } from './measurements.js';
import { refuseExternalData } from './onnx-file.js';

/** Of a base model's folder. */
export const BASE_GRAPH = 'model.onnx';
/** Batches as short texts make them, [rows, tokens of a row]: what threads gain is least where a batch is small. */
const SHAPES = [
  [1, 128],
  [4, 32],
  [2, 96],
  [6, 24],
  [3, 64],
  [8, 16],
] as const;
/** The machine's own moods last for seconds: layouts take turns. */
const TURNS = 3;
const ROUNDS = 2;
/** A host more takes memory in every set of graphs: it has to be worth that. */
const WORTH = 1.05;
/**
 * How busy this process is while hosts are measured, of a core: about as busy as it is when it answers. The threads of a
 * host wait for each other at every operator, and so for the one whose core is wanted by somebody else.
 */
const BUSY = { everyMs: 10, forMs: 2 };

export class HostLayout {
  constructor(
    readonly hosts: number,
    readonly threads: number,
  ) {}
}

export interface MeasuredLayout {
  hosts: number;
  threads: number;
  tokensPerSecond: number;
}

/**
 * Layouts to try, those with fewer hosts first: on a CPU every core is used once; a GPU has one host or two, whose threads
 * do not count.
 */
export function layoutsOf(device: string, cores: number, most: number): HostLayout[] {
  const { length: devices } = devicesOf(device);
  if (isGpu(device)) return [devices, 2 * devices].map((hosts) => new HostLayout(hosts, 1));
  const hosts = [1];
  for (let more = 2; more < cores; more *= 2) hosts.push(more);
  if (cores > 1) hosts.push(cores);
  return hosts.filter((n) => n <= Math.max(1, most)).map((n) => new HostLayout(n, Math.max(1, Math.floor(cores / n))));
}

/** Of layouts by number of hosts, the first that no other beats by what more hosts are worth. */
export function chooseLayout(measured: MeasuredLayout[]): HostLayout {
  const best = Math.max(...measured.map(({ tokensPerSecond }) => tokensPerSecond));
  const { hosts, threads } = measured.find(({ tokensPerSecond }) => tokensPerSecond * WORTH >= best)!;
  return new HostLayout(hosts, threads);
}

export async function findLayout(config: Config): Promise<HostLayout> {
  const { hosts, hostThreads, device, baseModel, dataDir, modelMemoryBytes } = config;
  const cores = availableParallelism();
  if (hosts !== '') return new HostLayout(hosts, hostThreads === '' ? 1 : hostThreads);
  if (hostThreads !== '' && !isGpu(device)) {
    return new HostLayout(Math.max(1, Math.floor(cores / hostThreads)), hostThreads);
  }
  const path = join(baseModel, BASE_GRAPH);
  const sha256 = await fileDigest(path);
  const graph = { sha256, path };
  // Of two sets of graphs, a swap's old and new one, both must fit.
  const most = Math.floor(modelMemoryBytes / 2 / estimatedBytes([graph], 1));
  const layouts = layoutsOf(device, cores, most);
  const kept = new KeptMeasurements<MeasuredLayout[]>(join(dataDir, 'host-layouts.json'));
  // Not the memory itself: most changes of it change nothing.
  const key = [sha256, await machine(device), `at most ${layouts.at(-1)!.hosts} hosts`].join(' | ');
  const known = await kept.of(key);
  if (known) return chooseLayout(known);
  await refuseExternalData(path, sha256);
  const log = new Logger(HostLayout.name);
  log.log(`measuring ${layouts.length} layouts of model hosts, once on this machine`);
  const rates = layouts.map((): number[] => []);
  for (let turn = 0; turn < TURNS; turn++) {
    for (const [i, layout] of layouts.entries()) rates[i]!.push(await measureLayout(graph, layout, device));
  }
  const measured = layouts.map(({ hosts: n, threads }, i) => ({
    hosts: n,
    threads,
    tokensPerSecond: median(rates[i]!),
  }));
  await kept.keep(key, measured);
  const chosen = chooseLayout(measured);
  const told = measured.map((one) => `${one.hosts}x${one.threads}: ${Math.round(one.tokensPerSecond)}`).join(', ');
  log.log(`${chosen.hosts} hosts of ${chosen.threads} threads (tokens a second by hosts x threads: ${told})`);
  return chosen;
}

/** Tokens a second with every host busy, and this process. */
async function measureLayout(
  graph: { sha256: string; path: string },
  { hosts, threads }: HostLayout,
  device: string,
): Promise<number> {
  const group = await HostGroup.start([graph], { threads, device }, hosts);
  const busy = setInterval(spin, BUSY.everyMs);
  try {
    const batches = SHAPES.map(([rows, length]) => blankBatch(graph.sha256, rows, length));
    const tokens = SHAPES.reduce((sum, [rows, length]) => sum + rows * length, 0);
    const round = () =>
      Promise.all(
        Array.from({ length: hosts }, () => batches)
          .flat()
          .map((batch) => group.run(graph.sha256, batch)),
      );
    await round();
    const startedMs = performance.now();
    for (let i = 0; i < ROUNDS; i++) await round();
    return (ROUNDS * hosts * tokens) / Math.max(1e-5, (performance.now() - startedMs) / 1000);
  } finally {
    clearInterval(busy);
    await group.close();
  }
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

function spin(): void {
  const endMs = performance.now() + BUSY.forMs;
  while (performance.now() < endMs);
}
