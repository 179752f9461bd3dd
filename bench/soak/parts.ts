/** Memory of a service by what its processes are. */
import { readFileSync } from 'node:fs';
import { pssMib, tree } from '../serving/tree.ts';

const PARTS: [name: string, commandLine: RegExp][] = [
  ['trainer', /fewloop_trainer/u],
  ['postgres', /postgres/u],
  ['hosts', /runtime\/host/u],
];

/** Proportional set size in MiB; `service` is the process itself. */
export function memoryByPart(pid: number): Record<string, number> {
  const parts: Record<string, number[]> = { service: [], hosts: [], postgres: [], trainer: [] };
  for (const one of tree(pid)) parts[partOf(one)]!.push(one);
  return Object.fromEntries(Object.entries(parts).map(([name, pids]) => [name, Number(pssMib(pids).toFixed(2))]));
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
