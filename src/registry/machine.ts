/**
 * What measurements hold for: the processor by what decides how fast it multiplies, not by its name alone (machines of
 * a cloud share one), the GPUs, and the version of ONNX Runtime, which has kernels for each of them.
 */
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isGpu } from '../common/devices.js';
import { packageVersion } from '../common/package-version.js';

/** Lines of /proc/cpuinfo, x86's and then ARM's. */
const FACTS = [
  'vendor_id',
  'model name',
  'cpu family',
  'model',
  'stepping',
  'cache size',
  'CPU implementer',
  'CPU architecture',
  'CPU variant',
  'CPU part',
  'CPU revision',
];
/** Of its flags those that kernels are chosen by; the others come and go with the system's version. */
const VECTOR_FLAGS = { flags: /^(?:ssse3|sse4|avx|fma|f16c|amx)/u, Features: /^(?:asimd|fphp|sve|sme|i8mm|bf16)/u };
const NVIDIA_FOLDER = '/proc/driver/nvidia/gpus';

export interface MachineSources {
  /** The text of /proc/cpuinfo; throws where there is none. */
  cpuinfo(): Promise<string>;
  /** As `nvidia-smi --list-gpus` prints them, or the driver's files one after the other; throws where there are none. */
  gpus(): Promise<string>;
}

const HERE: MachineSources = {
  cpuinfo: () => readFile('/proc/cpuinfo', 'utf8'),
  gpus: async () => {
    try {
      return (await promisify(execFile)('nvidia-smi', ['--list-gpus'])).stdout;
    } catch {
      const folders = (await readdir(NVIDIA_FOLDER)).sort();
      const files = folders.map((folder) => readFile(join(NVIDIA_FOLDER, folder, 'information'), 'utf8'));
      return (await Promise.all(files)).join('\n');
    }
  },
};

/**
 * One line, the same wherever a measurement for `device` says the same. GPUs are all that the process sees, by name: in
 * which order CUDA numbers them is its own matter. Where the system tells nothing of them that part is empty.
 */
export async function machine(device: string, { cpuinfo, gpus }: MachineSources = HERE): Promise<string> {
  const name = cpus()[0]?.model ?? '';
  const processor = await cpuinfo().then(processorOf, () => name);
  return [
    processor || name,
    `${availableParallelism()} cores`,
    `onnxruntime ${packageVersion('onnxruntime-node')}`,
    device,
    ...(isGpu(device) ? [await gpus().then(gpusOf, () => '')] : []),
  ].join(' | ');
}

/** Each kind of core in /proc/cpuinfo once: names, numbers, cache and vector flags. Empty where it has none of them. */
export function processorOf(cpuinfo: string): string {
  const kinds = cpuinfo.split(/\n\s*\n/u).map((core) => {
    const lines = new Map(core.split('\n').map((line) => line.split(/\s*:\s*/u, 2) as [string, string]));
    const facts = FACTS.flatMap((fact) => (lines.get(fact) ? [`${fact} ${lines.get(fact)}`] : []));
    const flags = Object.entries(VECTOR_FLAGS).flatMap(([line, pattern]) =>
      (lines.get(line) ?? '').split(' ').filter((flag) => pattern.test(flag)),
    );
    return [...facts, ...flags.sort()].join(' ');
  });
  return [...new Set(kinds)].filter(Boolean).join('; ');
}

/** Names of GPUs and of the slices they are divided into, without what tells one GPU from another of its kind. */
export function gpusOf(listed: string): string {
  const ofDriver = [...listed.matchAll(/^Model:\s*(.+)$/gmu)].map(([, model]) => model!.trim());
  const ofTool = [...listed.matchAll(/^\s*(?:GPU \d+: |(?=MIG ))(.+?)(?:\s+Device\s+\d+:)?\s*\(UUID:.*$/gmu)];
  return [...ofDriver, ...ofTool.map(([, model]) => model!)].join(', ');
}
