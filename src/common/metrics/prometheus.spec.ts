import { expect, it, vi } from 'vitest';
import { DESCRIPTIONS } from './descriptions.js';
import { PrometheusMetrics } from './prometheus.js';

const lines = async (metrics: PrometheusMetrics, start: string) =>
  (await metrics.scrape()).split('\n').filter((line) => line.startsWith(start));

it('follows the conventions of names', () => {
  for (const [name, { kind }] of Object.entries(DESCRIPTIONS)) {
    expect(name).toMatch(/^fewloop_[a-z_]+$/u);
    expect(name.endsWith('_total')).toBe(kind === 'counter');
    expect(name).not.toMatch(/_(ms|millis|milliseconds|mb|kb|percent)(_|$)/u);
  }
});

it('tells every metric, and the ones of the process and of Node', async () => {
  const text = await new PrometheusMetrics().scrape();
  for (const name of Object.keys(DESCRIPTIONS)) expect(text).toContain(`# TYPE ${name} `);
  expect(text).toMatch(/^process_resident_memory_bytes \d/mu);
  expect(text).toMatch(/^nodejs_eventloop_lag_p99_seconds \d/mu);
});

it('a gauge that is not read has no value', async () => {
  const metrics = new PrometheusMetrics();
  let known = true;
  metrics.onScrape('stream', (set) => {
    if (!known) return;
    set('fewloop_stream_drain_seconds', {}, 3);
    set('fewloop_active_version', { task: 'a' }, 2);
  });
  expect(await lines(metrics, 'fewloop_stream_drain_seconds')).toEqual(['fewloop_stream_drain_seconds 3']);
  expect(await lines(metrics, 'fewloop_active_version')).toEqual(['fewloop_active_version{task="a"} 2']);
  known = false;
  expect(await lines(metrics, 'fewloop_stream_drain_seconds')).toEqual([]);
  expect(await lines(metrics, 'fewloop_active_version')).toEqual([]);
});

it('a part that cannot be read leaves the others, and is counted', async () => {
  const metrics = new PrometheusMetrics();
  metrics.onScrape('broken', () => Promise.reject(new Error('no database')));
  metrics.onScrape('whole', (set) => set('fewloop_hosts', {}, 2));
  expect(await lines(metrics, 'fewloop_hosts ')).toEqual(['fewloop_hosts 2']);
  expect(await lines(metrics, 'fewloop_scrape_failures_total')).toEqual([
    'fewloop_scrape_failures_total{part="broken"} 2',
  ]);
});

it('the tasks beyond the hundredth share a series', async () => {
  const metrics = new PrometheusMetrics();
  for (let i = 0; i < 150; i++) {
    metrics.add('fewloop_predictions_total', { task: `t${i}`, version: '1', source: 'api', route: 'ACCEPT' });
    metrics.add('fewloop_swaps_total', { task: `t${i}` });
  }
  expect(await lines(metrics, 'fewloop_swaps_total')).toHaveLength(101);
  expect(await lines(metrics, 'fewloop_predictions_total{task="other"')).toEqual([
    'fewloop_predictions_total{task="other",version="",source="api",route="ACCEPT"} 50',
  ]);
});

it('gauges of the tasks beyond the hundredth are what all of them make: a sum, the largest, or nothing', async () => {
  const metrics = new PrometheusMetrics();
  metrics.onScrape('learning', (set) => {
    for (let i = 0; i < 104; i++) {
      const task = `t${i}`;
      for (const state of ['FAILED', 'QUEUED']) set('fewloop_runs', { task, state }, 0);
      set('fewloop_runs', { task, state: 'FAILED' }, i - 99);
      set('fewloop_drift_alarm', { task }, Number(i === 102));
      set('fewloop_promotion_waiting_seconds', { task }, i === 101 ? 60 : 5);
      set('fewloop_active_version', { task }, i);
    }
  });
  const other = async () => (await lines(metrics, 'fewloop_')).filter((line) => line.includes('task="other"'));
  const expected = [
    'fewloop_runs{task="other",state="FAILED"} 10',
    'fewloop_runs{task="other",state="QUEUED"} 0',
    'fewloop_promotion_waiting_seconds{task="other"} 60',
    'fewloop_drift_alarm{task="other"} 1',
  ];
  expect(await other()).toEqual(expected);
  // Each scrape anew.
  expect(await other()).toEqual(expected);
  expect(await lines(metrics, 'fewloop_active_version')).toHaveLength(100);
});

it('of a task the last four versions have series', async () => {
  const metrics = new PrometheusMetrics();
  for (let version = 1; version <= 7; version++) {
    const labels = { task: 'a', version: String(version) };
    metrics.add('fewloop_predictions_total', { ...labels, source: 'api', route: 'ACCEPT' });
    metrics.observe('fewloop_inference_seconds', { ...labels, policy: 'ensemble', priority: 'bulk' }, 0.1);
    metrics.add('fewloop_predictions_total', { task: 'b', version: '1', source: 'api', route: 'ACCEPT' });
  }
  await vi.waitFor(async () => {
    const versions = (await lines(metrics, 'fewloop_predictions_total{task="a"')).map(
      (line) => /version="(\d)"/u.exec(line)![1],
    );
    expect(versions).toEqual(['4', '5', '6', '7']);
    expect(await lines(metrics, 'fewloop_inference_seconds_count')).toHaveLength(4);
  }, 10_000);
  expect(await lines(metrics, 'fewloop_predictions_total{task="b"')).toHaveLength(1);
});
