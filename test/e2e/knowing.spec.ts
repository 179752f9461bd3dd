/** What the fewloop command tells of a task's knowledge of itself, as built, against the whole service. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runCli } from '../fixtures/cli.js';
import { type Service, startService } from '../fixtures/service.js';

const TASK = `name: reviews
kind: single-label
labels: [{name: positive, words: [好]}, {name: negative, words: [差]}]
templates: ["这是一条{mask}评。{text}"]
maxLength: 64
pool: {auditRate: 1}
learning: {trigger: {newLabels: null, drift: {falseAlarmsPerYear: 1, minEffect: 0.1}}}
`;

interface Shown {
  liveAccuracy: { rows: number; low: number; calibration: string; waiting: number };
  drift: object | null;
  stopping: { advice: string };
  examples: { train: number; dev: number; test: number; revoked: number };
}

let service: Service;
let folder: string;

const fewloop = (...args: string[]) => runCli(service.url, args);
const show = async () => JSON.parse((await fewloop('task', 'show', 'reviews')).out) as Shown;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fewloop-knowing-'));
  service = await startService();
  const task = join(folder, 'task.yaml');
  await writeFile(task, TASK);
  const { code, err } = await fewloop('task', 'apply', task);
  if (code !== 0) throw new Error(err);
});
afterAll(async () => {
  await service?.close();
  await rm(folder, { recursive: true, force: true });
});

it('an audit answer is part of the live accuracy, until its source is revoked', async () => {
  expect(await show()).toMatchObject({ drift: null, stopping: { advice: 'UNKNOWN' }, liveAccuracy: { rows: 0 } });
  await service.request('mutation { ingest(task: "reviews", inputs: [{text: "送货快，包装好"}]) { accepted } }');
  const queue =
    '{ reviewQueue(task: "reviews", strategy: RANDOM_AUDIT) { edges { node { id prediction { label } } } } }';
  type Queue = { reviewQueue: { edges: { node: { id: string; prediction: { label: string } } }[] } };
  let edges: Queue['reviewQueue']['edges'] = [];
  while (edges.length === 0) ({ edges } = (await service.request<Queue>(queue)).reviewQueue);
  const { id, prediction } = edges[0]!.node;
  expect((await show()).liveAccuracy.waiting).toBe(1);
  const label = 'mutation ($id: ID!, $labels: [String!]!) { label(candidate: $id, labels: $labels) { id } }';
  await service.request(label, { id, labels: [prediction.label] });
  expect(await show()).toMatchObject({
    liveAccuracy: { rows: 1, right: 1, accuracy: 1, high: 1, calibration: 'INSUFFICIENT', calibrationError: null },
  });
  // Metrics are kept for minutes: this is the first scrape.
  const metrics = await (await fetch(service.url.replace('/graphql', '/metrics'))).text();
  expect(metrics).toMatch(/^fewloop_live_accuracy\{.*task="reviews",bound="low".*\} 0\.2/mu);
  expect(metrics).not.toContain('fewloop_drift_alarm{');
  const counted = await fewloop('revoke', 'reviews', '--origin', 'audit', '--dry-run');
  expect(counted.out).toBe('reviews: 1 would be revoked\n');
  expect((await fewloop('revoke', 'reviews', '--origin', 'audit')).out).toBe('reviews: 1 revoked\n');
  expect(await show()).toMatchObject({
    liveAccuracy: { rows: 0 },
    examples: { train: 0, dev: 0, test: 0, revoked: 1 },
  });
  const back = await fewloop('revoke', 'reviews', '--origin', 'audit', '--since', '2020-01-01', '--restore');
  expect(back.out).toBe('reviews: 1 restored\n');
});

it('revoke wants a source, and times that are times', async () => {
  const nothing = await fewloop('revoke', 'reviews');
  expect([nothing.code, nothing.err]).toEqual([1, expect.stringContaining('name a source')]);
  const never = await fewloop('revoke', 'reviews', '--since', 'never');
  expect([never.code === 0, never.err]).toEqual([false, expect.stringContaining('ISO 8601')]);
});

it('a run that is not there is neither explained nor repeated', async () => {
  const unknown = crypto.randomUUID();
  const missing = await fewloop('run', 'show', unknown);
  expect([missing.code, missing.err]).toEqual([1, expect.stringContaining(unknown)]);
  const repeated = await fewloop('run', 'reproduce', unknown);
  expect([repeated.code, repeated.err]).toEqual([1, expect.stringContaining(`there is no run ${unknown}`)]);
});
