/**
 * The service's model host, driven by run.py: a group of one, as a bundle has it, from the build.
 *   node bench/gpu/host.ts GRAPH DEVICE THREADS
 * A line of JSON in, {"rows", "length", "seconds", "inFlight"}; a line out, {"ms"} a batch and the first batch's {"logits"}.
 * Says {"ready": true} first, or {"error"} where the host cannot load the graph on the device.
 */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type * as hosts from '../../src/runtime/host-group.js';
import { graphBatch } from '../../test/fixtures/graph-batch.ts';

const [path = '', device = 'cpu', threads = '1'] = process.argv.slice(2);
const { HostGroup } = (await import(join(import.meta.dirname, '../../dist/src/runtime/host-group.js'))) as typeof hosts;

interface Ask {
  rows: number;
  length: number;
  seconds: number;
  inFlight: number;
}

const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);

async function measure(group: hosts.HostGroup, { rows, length, seconds, inFlight }: Ask) {
  const batch = graphBatch('graph', rows, length);
  const { logits } = await group.run('graph', batch); // prepares the shape
  const startedMs = performance.now();
  let runs = 0;
  const lane = async () => {
    do {
      await group.run('graph', batch);
      runs++;
    } while (performance.now() - startedMs < seconds * 1000);
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  return { ms: (performance.now() - startedMs) / runs, logits: [...logits] };
}

try {
  const group = await HostGroup.start([{ sha256: 'graph', path }], { threads: Number(threads), device }, 1);
  print({ ready: true });
  for await (const line of createInterface({ input: process.stdin })) print(await measure(group, JSON.parse(line) as Ask));
  await group.close();
} catch (error) {
  print({ error: (error as Error).message });
  process.exitCode = 1;
}
