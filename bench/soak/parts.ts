/** Memory of a service by what its processes are, and what else the machine does. */
import { readFileSync } from 'node:fs';
import { ownMib, tree } from '../serving/tree.ts';

const PARTS: [name: string, commandLine: RegExp][] = [
  ['trainer', /fewloop_trainer/u],
  ['postgres', /postgres/u],
  ['hosts', /runtime\/host/u],
];

/** Proportional set size of what is of no file, in MiB; `service` is the process itself. */
export function memoryByPart(pid: number): Record<string, number> {
  const parts: Record<string, number[]> = { service: [], hosts: [], postgres: [], trainer: [] };
  for (const one of tree(pid)) parts[partOf(one)]!.push(one);
  return Object.fromEntries(Object.entries(parts).map(([name, pids]) => [name, Number(ownMib(pids).toFixed(2))]));
}

function partOf(pid: number): string {
  let commandLine = '';
  try {
    commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    // It has ended.
  }
  return PARTS.find(([, pattern]) => pattern.test(commandLine))?.[0] ?? 'service';
}

/** All that the machine's processors did, in seconds; its own waiting and what a hypervisor gave to others left out. */
export function machineSeconds(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readFileSync('/proc/stat', 'utf8')
    .split('\n')[0]!
    .split(/\s+/u)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq) / 100;
}
