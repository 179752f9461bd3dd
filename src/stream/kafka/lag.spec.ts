import { describe, expect, it, vi } from 'vitest';
import { ConsumptionRate, lagOf, StreamLag, type PartitionView } from './lag.js';
import { InputPartition } from './input-partition.js';
import type { Incoming } from './record.js';

const view = (changes: Partial<PartitionView>): PartitionView => ({
  topic: 't',
  partition: 0,
  unsettled: 0,
  oldestMs: undefined,
  position: 40n,
  high: 40n,
  density: 1,
  ...changes,
});

describe('lagOf', () => {
  it('is 0 at the end, whatever markers lie behind the last record', () => {
    expect(lagOf(view({})).records).toBe(0);
  });

  it('counts what was fetched and is not committed one by one', () => {
    expect(lagOf(view({ unsettled: 30 })).records).toBe(30);
  });

  it('takes of the offsets that were not fetched the share that is records', () => {
    expect(lagOf(view({ unsettled: 5, high: 140n, density: 0.75 })).records).toBe(5 + 75);
    expect(lagOf(view({ high: 41n, density: 0.75 })).records).toBe(0);
  });

  it('asks the brokers where nothing was fetched, or fetching is paused', () => {
    expect(lagOf(view({ position: undefined, high: 0n }), { from: 10n, to: 25n }).records).toBe(15);
    expect(lagOf(view({ position: undefined, high: 0n })).records).toBe(0);
    expect(lagOf(view({ high: 40n }), { from: 10n, to: 60n }).records).toBe(20);
  });
});

describe('InputPartition', () => {
  const record = (offset: number): Incoming => ({
    topic: 't',
    partition: 0,
    offset: String(offset),
    timestamp: String(1000 + offset),
    key: null,
    value: null,
    headers: {},
  });
  const limits = { records: 2, bytes: 1000 };

  it('moves past markers and keeps the share of records', () => {
    const partition = new InputPartition('t', 0, Promise.resolve());
    // Three records and a marker, four times.
    for (const from of [0, 4, 8, 12]) {
      partition.push(
        BigInt(from),
        BigInt(from + 2),
        [0, 1, 2].map((i) => record(from + i)),
      );
      partition.passed(BigInt(from + 4), 16n);
    }
    expect(partition.view).toMatchObject({ unsettled: 12, oldestMs: 1000, position: 16n, high: 16n });
    expect(partition.view.density).toBeCloseTo(0.75, 5);
    const claim = partition.claim(limits, () => false)!;
    expect(partition.view).toMatchObject({ unsettled: 12, oldestMs: 1000 });
    partition.finish(claim);
    expect(partition.view).toMatchObject({ unsettled: 10, oldestMs: 1002 });
    // A marker alone.
    partition.passed(17n, 17n);
    expect(lagOf(partition.view).records).toBe(10);
  });

  it('begins again where fetching does', () => {
    const partition = new InputPartition('t', 0, Promise.resolve());
    partition.push(10n, 10n, [record(10)]);
    partition.passed(11n, 20n);
    partition.restart();
    expect(partition.view).toMatchObject({ unsettled: 0, position: undefined });
  });
});

describe('ConsumptionRate', () => {
  it('counts the time of work alone, once where batches overlap', () => {
    const rate = new ConsumptionRate();
    expect(rate.perSecond).toBeUndefined();
    rate.kept(100, 0, 1000);
    rate.kept(100, 500, 2000);
    expect(rate.perSecond).toBeCloseTo(100, 0);
    // An hour later.
    rate.kept(100, 3_600_000, 3_601_000);
    expect(rate.perSecond).toBeCloseTo(100, 0);
  });

  it('forgets how it was minutes ago', () => {
    const rate = new ConsumptionRate();
    rate.kept(1000, 0, 1000);
    for (let i = 1; i <= 600; i++) rate.kept(10, i * 1000, (i + 1) * 1000);
    expect(rate.perSecond).toBeCloseTo(10, 0);
  });
});

describe('StreamLag', () => {
  const read = async (lag: StreamLag, views: PartitionView[], isFetched = true) => {
    const gauges: Record<string, number> = {};
    await lag.gauges(
      (name, labels, value) => (gauges[`${name} ${Object.values(labels).join()}`.trim()] = value),
      views,
      () => isFetched,
    );
    return gauges;
  };

  it('sums records and takes the oldest, by topic', async () => {
    const lag = new StreamLag(vi.fn());
    const oldestMs = Date.now() - 60_000;
    const gauges = await read(lag, [
      view({ unsettled: 3, oldestMs }),
      view({ partition: 1, unsettled: 4, oldestMs: oldestMs + 30_000 }),
      view({ topic: 'u', unsettled: 0 }),
    ]);
    expect(gauges).toMatchObject({ 'fewloop_stream_lag_records t': 7, 'fewloop_stream_lag_records u': 0 });
    expect(gauges['fewloop_stream_lag_seconds t']).toBeCloseTo(60, 0);
    expect(gauges['fewloop_stream_lag_seconds u']).toBe(0);
    expect(gauges).not.toHaveProperty('fewloop_stream_drain_seconds');
  });

  it('a producer in the future is of now; without a record in hand the rate tells', async () => {
    const lag = new StreamLag(async () => new Map([[1, { from: 0n, to: 200n }]]));
    lag.rate.kept(100, 0, 1000);
    const gauges = await read(lag, [
      view({ unsettled: 1, oldestMs: Date.now() + 3_600_000 }),
      view({ partition: 1, position: undefined, high: 0n }),
    ]);
    expect(gauges['fewloop_stream_lag_seconds t']).toBeCloseTo(2, 5);
    expect(gauges['fewloop_stream_drain_seconds']).toBeCloseTo(2.01, 5);
    expect(gauges['fewloop_stream_consumption_rate']).toBeCloseTo(100, 5);
  });

  it('goes by what is known while the brokers are away', async () => {
    const ask = vi.fn().mockRejectedValue(new Error('away'));
    const gauges = await read(new StreamLag(ask), [view({ unsettled: 2, oldestMs: Date.now() })], false);
    expect(ask).toHaveBeenCalledOnce();
    expect(gauges['fewloop_stream_lag_records t']).toBe(2);
  });
});
