/**
 * Many records, of which one in a thousand is poison: half of these cannot be read, the others make the batch that they
 * are in fail in the model. FAULT_POISON_RECORDS (20,000) says how many.
 * The model costs nothing, so that it is the stream that is at work.
 */
import kafkajs from 'kafkajs';
import { expect, it } from 'vitest';
import type { ReadMessage } from '../fixtures/kafka.js';
import { report, useCluster } from './harness.js';

const RECORDS = Number(process.env['FAULT_POISON_RECORDS'] ?? 20_000);
const CHUNK = 1000;
/** In each thousand, the record at that place. */
const AT = 500;
const PATIENCE_MS = 3_600_000;

const { cluster, begin } = useCluster();

function record(i: number): { key: string; value: string | Buffer } {
  const key = `k${i % 977}`;
  if (i % 1000 !== AT) return { key, value: JSON.stringify({ id: `r${i}`, text: `第${i}件，包装完好，下次还买` }) };
  const unreadable = Math.floor(i / 1000) % 2 === 0;
  return { key, value: unreadable ? Buffer.from([0xff, i % 251]) : JSON.stringify({ id: `r${i}`, text: `毒${i}` }) };
}

const isPoison = ({ value }: ReadMessage) => value![0] === 0xff || String(value).includes('"毒');

it(
  `${RECORDS} records, one in a thousand poison`,
  async () => {
    const run = await begin({ FAULT_MODEL: 'free' });
    const { topics } = cluster();
    for (let from = 0; from < RECORDS; from += CHUNK) {
      const messages = Array.from({ length: Math.min(CHUNK, RECORDS - from) }, (_, i) => record(from + i));
      await topics.send(run.input, messages, kafkajs.CompressionTypes.GZIP);
    }
    const startedAt = performance.now();
    run.start();
    run.start();
    await run.committed(PATIENCE_MS);
    const seconds = (performance.now() - startedAt) / 1000;

    // By place: what was sent there, and what came out of it.
    const [sent, scored, dead] = [new Map<string, boolean>(), new Map<string, number>(), new Map<string, number>()];
    const count = (counts: Map<string, number>, place: string) => counts.set(place, (counts.get(place) ?? 0) + 1);
    const last = new Map<string, number>();
    let outOfOrder = 0;
    const always = () => true;
    const note = (message: ReadMessage) => sent.set(`${message.partition}:${message.offset}`, isPoison(message));
    await topics.scan(run.input, note, always, PATIENCE_MS);
    const output = ({ key, value }: ReadMessage) => {
      const { source } = JSON.parse(String(value)) as { source: { partition: number; offset: number } };
      count(scored, `${source.partition}:${source.offset}`);
      if (source.offset < (last.get(String(key)) ?? -1)) outOfOrder += 1;
      last.set(String(key), source.offset);
    };
    await topics.scan(run.output, output, always, PATIENCE_MS);
    const codes = new Map<string, number>();
    const letter = ({ headers }: ReadMessage) => {
      count(dead, String(headers['fewloop-source']).split(':').slice(1).join(':'));
      count(codes, String(headers['fewloop-error-code']));
    };
    await topics.scan(`${run.input}.dlq`, letter, always, PATIENCE_MS);

    const places = [...sent];
    const lost = places.filter(([place, poison]) => !(poison ? dead : scored).has(place)).length;
    const wrongPlace = places.filter(([place, poison]) => (poison ? scored : dead).has(place)).length;
    const duplicated = [...scored.values(), ...dead.values()].reduce((sum, times) => sum + times - 1, 0);
    const history = await run.query<{ state: string; count: number }>(
      'SELECT state, count(*)::int AS count FROM stream_record GROUP BY state ORDER BY state',
    );
    const poison = places.filter(([, one]) => one).length;
    const text = [
      '| sent | poison | unreadable, dead | failed in the model, dead | lost | duplicated | out of order | at the wrong place | seconds | records a second |',
      '|---|---|---|---|---|---|---|---|---|---|',
      `| ${sent.size} | ${poison} | ${codes.get('BAD_INPUT')} | ${codes.get('INTERNAL')} | ${lost} | ${duplicated} | ${outOfOrder} | ${wrongPlace} | ${seconds.toFixed(0)} | ${(sent.size / seconds).toFixed(0)} |`,
    ].join('\n');
    report(text);
    expect({ sent: sent.size, lost, duplicated, outOfOrder, wrongPlace }).toEqual({
      sent: RECORDS,
      lost: 0,
      duplicated: 0,
      outOfOrder: 0,
      wrongPlace: 0,
    });
    expect(history).toEqual([
      { state: 'FAILED', count: poison },
      { state: 'SCORED', count: RECORDS - poison },
    ]);
  },
  PATIENCE_MS,
);
