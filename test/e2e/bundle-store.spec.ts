/**
 * Two replicas with data folders of their own, one PostgreSQL, one S3: what one registers, the other fetches and serves.
 * One is killed while it uploads: nothing that could be taken for a bundle is in the store, and the next attempt succeeds.
 * The steps follow each other.
 */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { freePort } from '../../scripts/kafka/broker.mjs';
import { createDatabase } from '../fixtures/database.js';
import { startProxy, type Proxy } from '../fixtures/proxy.js';
import { startS3, type S3 } from '../fixtures/s3.js';
import { makeDataDir, startServiceProcess, type ServiceProcess } from '../fixtures/service-process.js';

const task = (template: string) => `name: reviews
kind: single-label
labels: [{name: positive, words: [好]}, {name: negative, words: [差]}]
templates: ["${template}"]
maxLength: 64
`;
const [FIRST, SECOND] = [task('这是一条{mask}评。{text}'), task('{text} 总之很{mask}。')];
const APPLY = 'mutation ($definition: String!) { applyTask(definition: $definition) { activeVersion { version } } }';
const CLASSIFY = '{ classify(task: "reviews", inputs: [{text: "很好"}]) { modelVersion confidence } }';
const PATIENCE = { timeout: 60_000, interval: 100 };

let s3: S3;
let proxy: Proxy;
let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDirs: string[];
let writer: ServiceProcess;
let reader: ServiceProcess;

const startWriter = (endpoint: string) =>
  startServiceProcess(dataDirs[0]!, undefined, {
    ...s3.env,
    FEWLOOP_S3_ENDPOINT: endpoint,
    DATABASE_URL: database.url,
  });
const answerOf = async (service: ServiceProcess) =>
  (await service.request<{ classify: { modelVersion: number }[] }>(CLASSIFY)).classify[0]!;
const isManifest = (key: string) => key.endsWith('/manifest.json');

beforeAll(async () => {
  dataDirs = [makeDataDir(), makeDataDir()];
  [s3, database] = await Promise.all([startS3(), createDatabase()]);
  const port = await freePort();
  proxy = await startProxy(port, Number(new URL(s3.env['FEWLOOP_S3_ENDPOINT']!).port));
  writer = await startWriter(`http://127.0.0.1:${port}`);
  await writer.request(APPLY, { definition: FIRST });
  const env = { ...s3.env, DATABASE_URL: database.url, FEWLOOP_ROLE: 'api', FEWLOOP_LOG_LEVEL: 'info' };
  reader = await startServiceProcess(dataDirs[1]!, undefined, env);
}, 180_000);

afterAll(async () => {
  await Promise.all([writer, reader].map((service) => service?.kill()));
  await proxy?.close();
  await database?.drop();
  await s3?.stop();
  for (const folder of dataDirs) rmSync(folder, { recursive: true, force: true });
});

it('a replica without the files fetches and serves', async () => {
  expect((await s3.keys()).filter(isManifest)).toHaveLength(1);
  await expect.poll(() => answerOf(reader), PATIENCE).toEqual(await answerOf(writer));
  expect(reader.output()).toMatch(/version 1 of reviews was fetched from s3:/u);
  expect(readdirSync(join(dataDirs[1]!, 'bundles/reviews'))).toEqual(['1']);
});

it('killed while it uploads, it leaves nothing that looks like a bundle', async () => {
  const before = await s3.keys();
  proxy.delay(300);
  const applied = writer.request(APPLY, { definition: SECOND }).catch(() => 'killed');
  await expect.poll(async () => (await s3.keys()).length, PATIENCE).toBeGreaterThan(before.length);
  await writer.kill();
  expect(await applied).toBe('killed');
  const left = (await s3.keys()).filter((key) => !before.includes(key));
  expect(left).not.toEqual([]);
  expect(left.filter(isManifest)).toEqual([]);
  expect(await answerOf(reader)).toMatchObject({ modelVersion: 1 });
});

it('and the next attempt succeeds', async () => {
  proxy.mend();
  writer = await startWriter(s3.env['FEWLOOP_S3_ENDPOINT']!);
  expect(await writer.request(APPLY, { definition: SECOND })).toEqual({ applyTask: { activeVersion: { version: 2 } } });
  await expect.poll(() => answerOf(reader), PATIENCE).toMatchObject({ modelVersion: 2 });
  expect(await answerOf(reader)).toEqual(await answerOf(writer));
  expect((await s3.keys()).filter(isManifest)).toHaveLength(2);
});

it('a store that is away is said, and takes nobody out', async () => {
  const health = async () => {
    const response = await fetch(new URL('/health/ready', reader.url));
    return { status: response.status, body: await response.text() };
  };
  expect((await health()).body).toContain('"bundle store":{"ok":true');
  await s3.stop();
  const { status, body } = await health();
  expect(status).toBe(200);
  expect(body).toMatch(/"bundle store":\{"ok":false,"reason":"s3:/u);
  expect(await answerOf(reader)).toMatchObject({ modelVersion: 2 });
});
