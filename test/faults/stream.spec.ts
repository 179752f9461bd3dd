/**
 * The stream under random faults, a schedule a seed. A ledger of what was sent is compared with what came out.
 * FAULT_SEEDS=7 or 1-20 chooses; FAULT_REPORT names a file for the table.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, expect, it } from 'vitest';
import { FAULTS, pick, randomOf } from './faults.js';
import { CLEAN, report, table, useCluster } from './harness.js';

const [FIRST = 1, LAST = FIRST] = (process.env['FAULT_SEEDS'] ?? '1-20').split('-').map(Number);
const SEEDS = Array.from({ length: LAST - FIRST + 1 }, (_, i) => FIRST + i);
const RECORDS = 3000;
const CHUNK = 100;
const FAULTS_A_SEED = 5;
const SHORTEST_AWAY_MS = 2000;
const LONGEST_AWAY_MS = 8000;

const { begin } = useCluster();
const rows: Parameters<typeof table>[1] = [];
afterAll(() => report(table('seed', rows)));

it.each(SEEDS)('seed %i', async (seed) => {
  const random = randomOf(seed);
  const run = await begin();
  run.start();
  run.start();
  const producing = run.produce(RECORDS, CHUNK);
  const applied: string[] = [];
  for (let i = 0; i < FAULTS_A_SEED; i++) {
    await sleep(500 + random() * 2000);
    const name = pick(Object.keys(FAULTS), random);
    applied.push(name);
    if (run.workers.length < 2) run.start();
    await FAULTS[name]!(run, random, SHORTEST_AWAY_MS + random() * (LONGEST_AWAY_MS - SHORTEST_AWAY_MS));
  }
  run.stopProducing();
  await producing;
  run.start();
  const verdict = await run.verdict();
  rows.push({ name: String(seed), faults: applied.join(', '), verdict });
  expect(verdict).toMatchObject(CLEAN);
});
