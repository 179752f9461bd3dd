/** What the parts of a run take of processor time and memory, from /proc (Linux). */
import { readdirSync, readFileSync } from 'node:fs';

const TICKS_PER_SECOND = 100;
const PARTS = [
  ['worker', /bench\/stream\/serve\.mjs/u],
  ['peer', /bench\/stream\/peers|mlserver/u],
  ['broker', /\bkafka\.Kafka\b/u],
  ['postgresql', /postgres/u],
  ['hosts', /runtime\/host\.[jt]s/u],
];

/** Part → seconds of user and system time until now, ended children included. Of what is below `pid`, without it. */
export function cpuSeconds(pid) {
  const seconds = { worker: 0, hosts: 0, postgresql: 0, broker: 0 };
  for (const { part, stat } of parts(pid)) {
    const fields = part === 'bench' ? [] : stat.slice(11, 15);
    seconds[part] = (seconds[part] ?? 0) + fields.reduce((sum, field) => sum + Number(field), 0) / TICKS_PER_SECOND;
  }
  return seconds;
}

/** Part → proportional resident MiB: what several processes share counts once. */
export function memoryMib(pid) {
  const mib = { worker: 0, hosts: 0, postgresql: 0, broker: 0 };
  for (const { part, pid: one } of parts(pid)) {
    if (part === 'bench') continue;
    const kib = Number(/^Pss:\s+(\d+)/mu.exec(read(`/proc/${one}/smaps_rollup`))?.[1] ?? 0);
    mib[part] = (mib[part] ?? 0) + kib / 1024;
  }
  return Object.fromEntries(Object.entries(mib).map(([part, value]) => [part, Math.round(value)]));
}

export function difference(after, before) {
  const parts = Object.entries(after).map(([part, value]) => [part, Number((value - (before[part] ?? 0)).toFixed(2))]);
  return Object.fromEntries(parts.filter(([, value]) => value > 0));
}

/** What the machine did meanwhile beside this: [busy of all, stolen] seconds of all cores since the start. */
export function machineSeconds() {
  const [, user, nice, system, , , irq, softirq, steal] = read('/proc/stat').split('\n')[0].split(/\s+/u).map(Number);
  return { busy: (user + nice + system + irq + softirq) / TICKS_PER_SECOND, stolen: steal / TICKS_PER_SECOND };
}

function parts(root) {
  const children = new Map();
  for (const name of readdirSync('/proc')) {
    const stat = statOf(name);
    if (stat) children.set(stat[1], [...(children.get(stat[1]) ?? []), { pid: name, stat }]);
  }
  const found = [{ pid: String(root), stat: statOf(String(root)), part: 'bench' }];
  for (const one of found) {
    for (const child of children.get(one.pid) ?? []) {
      found.push({ ...child, part: partOf(child.pid) ?? one.part });
    }
  }
  return found;
}

/** By the command line, which now and then reads empty while a process is busy: what was once seen counts. */
const known = new Map();

function partOf(pid) {
  if (!known.has(pid)) {
    const command = read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ');
    const part = PARTS.find(([, pattern]) => pattern.test(command))?.[0];
    if (part) known.set(pid, part);
  }
  return known.get(pid);
}

/** The fields after the command's name, which may hold spaces: state, parent, …; undefined where it has ended. */
function statOf(pid) {
  const text = /^\d+$/u.test(pid) ? read(`/proc/${pid}/stat`) : '';
  return text === '' ? undefined : text.slice(text.lastIndexOf(')') + 2).split(' ');
}

function read(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
