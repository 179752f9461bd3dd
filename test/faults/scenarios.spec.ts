/**
 * One fault at a time, at its full length, while records keep coming. FAULT_AWAY_S (60) is how long what goes away is
 * away; FAULT_REPORT names a file for the table.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, expect, it } from 'vitest';
import { comeAndGo, FAULTS } from './faults.js';
import { CLEAN, report, table, useCluster, type Run } from './harness.js';

const AWAY_S = Number(process.env['FAULT_AWAY_S'] ?? 60);
const SHORT_S = Math.min(AWAY_S, 20);
const CHUNK = 200;
const WARM_MS = 3000;

const { begin } = useCluster();
const rows: Parameters<typeof table>[1] = [];
afterAll(() => report(table('scenario', rows)));

const away = (name: string, seconds: number) => (one: Run) => FAULTS[name]!(one, Math.random, seconds * 1000);

/** The fault so many times, with the load going on between. */
const repeated = (times: number, everyMs: number, names: string[]) => async (one: Run) => {
  for (let i = 0; i < times; i++) {
    await FAULTS[names[i % names.length]!]!(one, Math.random, 0);
    await sleep(everyMs);
  }
};

const SCENARIOS: [name: string, faults: string, happen: (run: Run) => Promise<void>][] = [
  ['broker gone', `SIGTERM, started again after ${AWAY_S} s`, away('broker away', AWAY_S)],
  ['PostgreSQL gone', `connections cut and refused for ${AWAY_S} s`, away('database away', AWAY_S)],
  ['network cut', `workers' connections ended and refused for ${AWAY_S} s`, away('network cut', AWAY_S)],
  ['network silent', `nothing passes for ${SHORT_S} s, and nobody is told`, away('network silent', SHORT_S)],
  ['network slow', `300 ms more each way for ${SHORT_S} s`, away('network slow', SHORT_S)],
  ['disk full', "no byte left on the broker's disk", away('disk full', SHORT_S)],
  ['clock', 'of a worker, ½ h ahead, 1 h back, ½ h ahead, and so on', repeated(9, 2500, ['clock jumps'])],
  ['swap and rollback', 'a new version and back, five times', repeated(10, 1500, ['swap', 'rollback'])],
  ['model host killed', 'SIGKILL, six times', repeated(6, 2500, ['model host killed'])],
  ['coming and going', 'a third worker joins, the oldest leaves, five times each', (one) => comeAndGo(one, 10, 2500)],
];

it.each(SCENARIOS)('%s: %s', async (name, faults, happen) => {
  const run = await begin();
  const first = run.start();
  run.start();
  await first.printed('reading ');
  const producing = run.produce(0, CHUNK);
  await sleep(WARM_MS);
  await happen(run);
  run.stopProducing();
  await producing;
  if (run.workers.length === 0) run.start();
  const verdict = await run.verdict();
  rows.push({ name, faults, verdict });
  expect(verdict).toMatchObject(CLEAN);
});
