/**
 * How long partitions stand still when the group changes: of each input partition, the longest time between two batches
 * from the change on, with records coming all the while. FAULT_REPORT names a file for the table.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { valueOf, type ReadMessage } from '../fixtures/kafka.js';
import { report, SESSION_MS, useCluster } from './harness.js';

const TIMES = 4;
const CHUNK = 30;
const EVERY_MS = 50;
/** Within that a change is over, a session that has to time out included. */
const WINDOW_MS = 9000;

const { cluster, begin } = useCluster();

interface Change {
  name: string;
  at: number;
}

/** Of each input partition, the longest pause in milliseconds that ends within the window. */
function pauses(scored: Map<number, number[]>, at: number): number[] {
  return [...scored.values()].map((times) => {
    const gaps = times.map((time, i) => (i > 0 && time >= at && time < at + WINDOW_MS ? time - times[i - 1]! : 0));
    return Math.max(...gaps);
  });
}

it('a worker joins, leaves, is killed', async () => {
  const run = await begin();
  const first = run.start();
  run.start();
  await first.printed('reading ');
  const producing = run.produce(0, CHUNK, EVERY_MS);
  await sleep(WINDOW_MS);
  const changes: Change[] = [];
  const change = async (name: string, happen: () => unknown) => {
    changes.push({ name, at: Date.now() });
    happen();
    await sleep(WINDOW_MS);
  };
  for (let i = 0; i < TIMES; i++) {
    await change('nothing', () => undefined);
    await change('a third worker joins', () => run.start());
    await change('one leaves (SIGTERM)', () => run.workers[0]!.signal('SIGTERM'));
    await change('a third worker joins', () => run.start());
    await change(`one is killed, session timeout ${SESSION_MS} ms`, () => run.workers[0]!.signal('SIGKILL'));
  }
  run.stopProducing();
  await producing;
  await run.committed();

  const scored = new Map<number, number[]>();
  const note = (message: ReadMessage) => {
    const { source, scoredAt } = valueOf(message) as unknown as { source: { partition: number }; scoredAt: string };
    const times = scored.get(source.partition);
    if (times) times.push(Date.parse(scoredAt));
    else scored.set(source.partition, [Date.parse(scoredAt)]);
  };
  for (const message of await cluster().topics.read(run.output, 1)) note(message);
  for (const times of scored.values()) times.sort((a, b) => a - b);
  const lines = [...Map.groupBy(changes, ({ name }) => name)].map(([name, own]) => {
    const all = own.flatMap(({ at }) => pauses(scored, at)).sort((a, b) => a - b);
    return `| ${name} | ${own.length} | ${all[Math.floor(all.length / 2)]} | ${all.at(-1)} |`;
  });
  const header = '| change | times | median of the partitions, ms | longest, ms |\n|---|---|---|---|';
  const text = [header, ...lines].join('\n');
  report(text);
  expect(scored.size).toBe(3);
});
