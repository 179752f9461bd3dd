/**
 * Three processes on one PostgreSQL: they converge to a new version; one that is cut off from the database keeps serving,
 * and one that lacks the version's files keeps the old one and says so; both follow once they can. One is killed.
 */
import { cpSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { freePort } from '../../scripts/kafka/broker.mjs';
import { startProxy, type Proxy } from '../fixtures/proxy.js';
import { makeDataDir, type ServiceProcess, startServiceProcess } from '../fixtures/service-process.js';

const task = (template: string) => `name: reviews
kind: single-label
labels: [{name: positive, words: [好]}, {name: negative, words: [差]}]
templates: ["${template}"]
maxLength: 64
`;
const APPLY = 'mutation ($definition: String!) { applyTask(definition: $definition) { activeVersion { version } } }';
const CLASSIFY = '{ classify(task: "reviews", inputs: [{text: "很好"}]) { modelVersion } }';
const REPLICAS = '{ replicas { activeVersions failures } }';
const PATIENCE = { timeout: 60_000, interval: 200 };

interface Replica {
  activeVersions: Record<string, number>;
  failures: Record<string, { version: number; message: string }>;
}

let shared: string;
let apart: string;
let first: ServiceProcess;
let cutOff: ServiceProcess;
let lacking: ServiceProcess;
let proxy: Proxy;

const versionOf = async (service: ServiceProcess) =>
  (await service.request<{ classify: { modelVersion: number }[] }>(CLASSIFY)).classify[0]!.modelVersion;
const versions = () => Promise.all([first, cutOff, lacking].map(versionOf));
const replicas = async () => (await first.request<{ replicas: Replica[] }>(REPLICAS)).replicas;

beforeAll(async () => {
  [shared, apart] = [makeDataDir(), makeDataDir()];
  first = await startServiceProcess(shared);
  await first.request(APPLY, { definition: task('这是一条{mask}评。{text}') });
  cpSync(shared, apart, { recursive: true, filter: (path) => !['postgres', 'stream'].includes(basename(path)) });
  const direct = new URL(first.databaseUrl);
  const port = await freePort();
  proxy = await startProxy(port, Number(direct.port));
  const through = new URL(direct);
  through.port = String(port);
  const api = { FEWLOOP_ROLE: 'api' };
  // One after the other: what has started is ended where the next does not start.
  cutOff = await startServiceProcess(shared, undefined, { ...api, DATABASE_URL: through.href });
  lacking = await startServiceProcess(apart, undefined, { ...api, DATABASE_URL: direct.href });
});

afterAll(async () => {
  await Promise.all([cutOff, lacking].map((service) => service?.kill()));
  await proxy?.close();
  await first?.end();
  for (const dataDir of [shared, apart]) rmSync(dataDir, { recursive: true, force: true });
}, 60_000);

it('serve the same version', async () => {
  await expect.poll(versions, PATIENCE).toEqual([1, 1, 1]);
});

it('follow a swap, those who can; one without the database goes on, one without the files says so', async () => {
  proxy.cut();
  await first.request(APPLY, { definition: task('{text} 总之很{mask}。') });
  await expect.poll(() => versionOf(first), PATIENCE).toBe(2);
  const failures = async () => (await replicas()).flatMap((replica) => Object.values(replica.failures));
  await expect.poll(failures, PATIENCE).toMatchObject([{ version: 2, message: expect.stringContaining('bundle') }]);
  expect(await versions()).toEqual([2, 1, 1]);
}, 90_000);

it('one that has the database again follows', async () => {
  proxy.mend();
  await expect.poll(versions, PATIENCE).toEqual([2, 2, 1]);
}, 90_000);

it('one that has the files now follows, and no longer complains', async () => {
  cpSync(join(shared, 'bundles'), join(apart, 'bundles'), { recursive: true });
  await expect.poll(versions, PATIENCE).toEqual([2, 2, 2]);
  const state = async () => (await replicas()).map(({ activeVersions, failures }) => ({ activeVersions, failures }));
  const converged = { activeVersions: { reviews: 2 }, failures: {} };
  await expect.poll(state, PATIENCE).toEqual([converged, converged, converged]);
}, 90_000);

it('one that is killed is missed by nobody', async () => {
  await cutOff.kill();
  await first.request(APPLY, { definition: task('东西很{mask}，{text}') });
  await expect.poll(() => Promise.all([first, lacking].map(versionOf)), PATIENCE).toEqual([3, 2]);
  cpSync(join(shared, 'bundles'), join(apart, 'bundles'), { recursive: true });
  await expect.poll(() => Promise.all([first, lacking].map(versionOf)), PATIENCE).toEqual([3, 3]);
}, 90_000);
