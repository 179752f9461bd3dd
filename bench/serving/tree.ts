/** What a process and all below it take, from /proc (Linux). */
import { readdirSync, readFileSync } from 'node:fs';

const TICKS_PER_SECOND = 100;

/** The process and its descendants. */
export function tree(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    const parent = Number(statOf(Number(name))?.[1]);
    if (!Number.isNaN(parent)) children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  const found = [pid];
  for (const one of found) found.push(...(children.get(one) ?? []));
  return found;
}

/** Seconds of user and system time, ended children included. */
export function cpuSeconds(pids: number[]): number {
  let ticks = 0;
  for (const pid of pids) ticks += (statOf(pid)?.slice(11, 15) ?? []).reduce((sum, field) => sum + Number(field), 0);
  return ticks / TICKS_PER_SECOND;
}

/** Proportional set size: memory that several processes share counts once. */
export function pssMib(pids: number[]): number {
  let kib = 0;
  for (const pid of pids) kib += Number(/^Pss:\s+(\d+)/mu.exec(read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0);
  return kib / 1024;
}

/**
 * The part of it that is of no file. A process's share of a program's pages grows when another that runs the same program
 * ends: over an hour it tells of the neighbours.
 */
export function ownMib(pids: number[]): number {
  let kib = 0;
  for (const pid of pids) {
    for (const [, size] of read(`/proc/${pid}/smaps_rollup`).matchAll(/^Pss_(?:Anon|Shmem):\s+(\d+)/gmu)) kib += Number(size);
  }
  return kib / 1024;
}

/** Samples of the memory of a tree, one a second: [seconds since the start, MiB]. */
export function watchMemory(pid: number): { samples: [number, number][]; stop(): void } {
  const samples: [number, number][] = [];
  const startedMs = performance.now();
  const take = () => samples.push([(performance.now() - startedMs) / 1000, pssMib(tree(pid))]);
  take();
  const timer = setInterval(take, 1000);
  return {
    samples,
    stop() {
      clearInterval(timer);
      take();
    },
  };
}

/** The fields after the command's name, which may hold spaces: state, parent, …; undefined where it has ended. */
function statOf(pid: number): string[] | undefined {
  const text = Number.isNaN(pid) ? '' : read(`/proc/${pid}/stat`);
  return text === '' ? undefined : text.slice(text.lastIndexOf(')') + 2).split(' ');
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
