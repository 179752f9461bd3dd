/** What a request asks of the database: the speed of serving hangs on it, and no machine changes it. */
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { mkdtemp, rm } from 'node:fs/promises';
import { AsyncLocalStorage } from 'node:async_hooks';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { createApp } from '../../src/app.module.js';
import { Config } from '../../src/config/config.js';
import { TINY_MODEL } from '../fixtures/bundle.js';
import { createDatabase } from '../fixtures/database.js';
import { reviewsTask } from '../fixtures/reviews.js';

const TASK = reviewsTask('counts');

/** Of the request that is being answered; what the service does beside it is in none. */
const request = new AsyncLocalStorage<{ statements: string[] }>();
let app: NestFastifyApplication;
let close: () => Promise<void>;

beforeAll(async () => {
  const database = await createDatabase();
  const dataDir = await mkdtemp(join(tmpdir(), 'fewloop-counts-'));
  const query = Client.prototype.query as (...args: unknown[]) => unknown;
  const spy = vi.spyOn(Client.prototype, 'query').mockImplementation(function (this: Client, ...args: unknown[]) {
    const [first] = args as [string | { text: string }];
    request.getStore()?.statements.push(typeof first === 'string' ? first : first.text);
    return query.apply(this, args) as never;
  });
  app = await createApp(
    Config.load({
      PORT: '0',
      DATABASE_URL: database.url,
      FEWLOOP_DATA_DIR: dataDir,
      FEWLOOP_BASE_MODEL: TINY_MODEL,
      FEWLOOP_HOSTS: '1',
      FEWLOOP_LOG_LEVEL: 'fatal',
      FEWLOOP_CACHE_MB: '0',
    }),
  );
  await app.listen(0, '127.0.0.1');
  close = async () => {
    await app.close();
    spy.mockRestore();
    await database.drop();
    await rm(dataDir, { recursive: true, force: true });
  };
  await statements('mutation ($d: String!) { applyTask(definition: $d) { name } }', { d: TASK });
  await classify(1, 'warm');
});

afterAll(() => close());

/** Sends it through the whole stack, without a socket, and returns the SQL that answering it took. */
async function statements(query: string, variables: object): Promise<string[]> {
  const own = { statements: [] as string[] };
  const payload = { query, variables };
  const response = await request.run(own, async () => app.inject({ method: 'POST', url: '/graphql', payload }));
  const { errors } = response.json<{ errors?: { message: string }[] }>();
  expect(errors).toBeUndefined();
  return own.statements;
}

function classify(texts: number, name: string): Promise<string[]> {
  const inputs = Array.from({ length: texts }, (_, i) => ({ text: `${name} ${i} 物流很快，包装完好` }));
  const query =
    'query ($inputs: [TextInput!]!) { classify(task: "counts", inputs: $inputs) { label route modelVersion } }';
  return statements(query, { inputs });
}

it('classify asks nothing of the database', async () => {
  expect(await classify(1, 'one')).toEqual([]);
  expect(await classify(64, 'many')).toEqual([]);
});

it('ingest asks as often for 64 texts as for one', async () => {
  const ingest = (texts: number, name: string) =>
    statements('mutation ($inputs: [TextInput!]!) { ingest(task: "counts", inputs: $inputs) { accepted } }', {
      inputs: Array.from({ length: texts }, (_, i) => ({ text: `${name} ${i} 物流很快` })),
    });
  const one = await ingest(1, 'one more');
  expect(one.length).toBeGreaterThan(0);
  expect(one.length).toBeLessThanOrEqual(4);
  expect(await ingest(64, 'more')).toHaveLength(one.length);
});
