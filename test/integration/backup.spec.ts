/** Backup and restore on two databases of one server: what is in it, and that a bad one leaves nothing behind. */
import { appendFile, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { makeBackup } from '../../src/backup/backup.js';
import { readContents, writeContents, type BackupContents } from '../../src/backup/format.js';
import { restoreBackup } from '../../src/backup/restore.js';
import { Config } from '../../src/config/config.js';
import { TINY_MODEL, tinyTask } from '../fixtures/bundle.js';
import { createDatabase } from '../fixtures/database.js';
import { startService, type Service } from '../fixtures/service.js';

const APPLY = 'mutation ($definition: String!) { applyTask(definition: $definition) { activeVersion { version } } }';
const INGEST = `mutation { ingest(task: "tiny", inputs: [{id: "a", text: "很好"}, {id: "b", text: "太差\\t\\\\N\\n"}]) { accepted } }`;
const ADD = `mutation { importExamples(task: "tiny", examples: [{text: "不错", labels: ["positive"], split: TRAIN}]) { added } }`;
const ASK = '{ classify(task: "tiny", inputs: [{text: "很好"}]) { modelVersion label confidence } }';
const STATE = `{ task(name: "tiny") { revision activeVersion { version } examples { train } stream { pending scored } }
  reviewQueue(task: "tiny") { totalCount } verifyLedger { entries brokenAt lastHash } }`;
const quiet = () => undefined;

let root: string;
let service: Service;
let folder: string;
let config: Config;
let target: Awaited<ReturnType<typeof createDatabase>>;
let restored: Config;

const query = async (url: string, sql: string) => {
  const client = new Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query<Record<string, unknown>>(sql);
  await client.end();
  return rows;
};
const tablesOf = async (url: string) =>
  (await query(url, `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`))
    .map(({ tablename }) => String(tablename))
    .sort();

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'fewloop-kept-'));
  service = await startService();
  await service.request(APPLY, { definition: JSON.stringify(tinyTask()) });
  await service.request(APPLY, { definition: JSON.stringify(tinyTask('tiny', { templates: ['{text}很{mask}。'] })) });
  await service.request(INGEST);
  await service.request(ADD);
  config = Config.load({ ...service.shared, FEWLOOP_BASE_MODEL: TINY_MODEL });
  const run = join(config.dataDir, 'runs/tiny/1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed');
  await mkdir(join(run, 'checkpoints'), { recursive: true });
  for (const name of ['run.json', 'labelled.jsonl', 'unlabelled.jsonl', 'checkpoints/large']) {
    await writeFile(join(run, name), `${name}\n`);
  }
  await mkdir(join(config.dataDir, 'runs/tiny/half'), { recursive: true });
  // Of which the unlabelled texts were erased for their age.
  const aged = join(config.dataDir, 'runs/tiny/aged');
  await mkdir(aged);
  for (const name of ['run.json', 'labelled.jsonl']) await writeFile(join(aged, name), `${name}\n`);
  folder = join(root, 'backup');
}, 120_000);
afterAll(async () => {
  await service?.close();
  await rm(root, { recursive: true, force: true });
});
beforeEach(async () => {
  target = await createDatabase();
  const dataDir = await mkdtemp(join(root, 'restored-'));
  restored = config.with({ databaseUrl: target.url, dataDir });
});
afterEach(() => target.drop());

it('takes every table that is kept, and what it says of itself', async () => {
  const stream = { pending: 0, scored: 2 };
  await expect.poll(() => service.request(STATE), { timeout: 30_000 }).toMatchObject({ task: { stream } });
  const summary = await makeBackup(config, folder, quiet);
  expect(summary).toMatchObject({ bundles: 2, runs: 2, folder });
  const contents = JSON.parse(await readFile(join(folder, 'backup.json'), 'utf8')) as BackupContents;
  const left = ['migrations', 'replica', 'access_usage', 'access_subscription'];
  const taken = contents.tables.map(({ table }) => table);
  expect([...taken, ...left].sort()).toEqual(await tablesOf(config.databaseUrl));
  expect(contents.files.map(({ file }) => file.split('/').slice(-2).join('/')).toSorted()).toEqual([
    '1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed/labelled.jsonl',
    '1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed/run.json',
    '1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed/unlabelled.jsonl',
    'aged/labelled.jsonl',
    'aged/run.json',
  ]);
  expect(await readdir(root)).toContain('backup');
  expect(await readdir(root)).not.toContain('backup.partial');
  await expect(makeBackup(config, folder, quiet)).rejects.toMatchObject({ code: 'BAD_INPUT' });
});

it('a service on what was restored answers and counts as the one before, and goes on', async () => {
  const summary = await restoreBackup(restored, folder, quiet);
  const before = [await service.request(ASK), await service.request(STATE)];
  const shared = { DATABASE_URL: target.url, FEWLOOP_DATA_DIR: restored.dataDir };
  const other = await startService(shared);
  try {
    expect([await other.request(ASK), await other.request(STATE)]).toEqual(before);
    // Sequences go on after what was given out.
    await other.request(APPLY, { definition: JSON.stringify(tinyTask()) });
    expect(await other.request(STATE)).toMatchObject({
      task: { revision: 3, activeVersion: { version: 3 } },
      verifyLedger: { entries: 3, brokenAt: null },
    });
  } finally {
    await other.close();
  }
  expect(await query(target.url, `SELECT text FROM stream_item WHERE external_id = 'b'`)).toEqual([
    { text: '太差\t\\N\n' },
  ]);
  expect(summary.rows).toBeGreaterThan(8);
  await expect(restoreBackup(restored, folder, quiet)).rejects.toThrow('is there already');
});

it('refuses a database that has Fewloop already', async () => {
  await expect(restoreBackup(restored.with({ databaseUrl: config.databaseUrl }), folder, quiet)).rejects.toThrow(
    /has a table .* already/u,
  );
  expect(await readdir(restored.dataDir)).toEqual([]);
});

it('refuses a backup that is another than was asked for', async () => {
  const digest = '0'.repeat(64);
  await expect(restoreBackup(restored, folder, quiet, { digest })).rejects.toThrow(`not ${digest}`);
});

describe('a backup that is not what it was', () => {
  let spoiled: string;

  beforeEach(async () => {
    spoiled = await mkdtemp(join(root, 'spoiled-'));
    await cp(folder, spoiled, { recursive: true });
  });
  const expectNothing = async () => {
    expect(await readdir(restored.dataDir)).toEqual([]);
    expect(await tablesOf(target.url)).toEqual([]);
  };

  it.each([
    'backup.json',
    'backup.json.sha256',
    'database/example.copy.gz',
    'bundles/tiny/1/golden.json',
    'bundles/tiny/2/manifest.json',
    'runs/tiny/1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed/labelled.jsonl',
  ])('is refused, and nothing restored: %s', async (file) => {
    await appendFile(join(spoiled, file), file.endsWith('sha256') ? '' : ' ');
    if (file.endsWith('sha256')) await writeFile(join(spoiled, file), `${'0'.repeat(64)}  backup.json\n`);
    await expect(restoreBackup(restored, spoiled, quiet)).rejects.toMatchObject({ code: 'BAD_INPUT' });
    await rm(join(spoiled, file));
    const refusal = restoreBackup(restored, spoiled, quiet);
    await expect(refusal).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringMatching(/backup|backed up/u),
    });
    await expectNothing();
  });

  it('is refused where its rows are not those that were counted, after all digests held', async () => {
    const contents = JSON.parse(await readFile(join(spoiled, 'backup.json'), 'utf8')) as BackupContents;
    contents.tables.at(-1)!.rows += 1;
    await writeContents(spoiled, contents);
    await expect(restoreBackup(restored, spoiled, quiet)).rejects.toThrow(/rows in place of/u);
    await expectNothing();
  });

  it.each(['../outside', '/etc/passwd', 'database/../../outside'])('its files stay in it: %s', async (file) => {
    const contents = JSON.parse(await readFile(join(spoiled, 'backup.json'), 'utf8')) as BackupContents;
    contents.files[0]!.file = file;
    await writeContents(spoiled, contents);
    await expect(restoreBackup(restored, spoiled, quiet)).rejects.toMatchObject({ code: 'BAD_INPUT' });
    await expectNothing();
  });
});

it('nothing is backed up where a bundle is not whole, and no half is left', async () => {
  const golden = join(config.dataDir, 'bundles/tiny/1/golden.json');
  const bytes = await readFile(golden);
  await appendFile(golden, ' ');
  const backup = makeBackup(config, join(root, 'second'), quiet);
  await expect(backup).rejects.toThrow(/version 1 of tiny is not whole in .*golden\.json is not what it was/u);
  expect((await readdir(root)).filter((name) => name.startsWith('second'))).toEqual([]);
  await writeFile(golden, bytes);
});

it('leaves out what it is told to, but not what answers', async () => {
  const without = (...names: string[]) => makeBackup(config, join(root, 'third'), quiet, { without: names });
  await expect(without('tiny/2')).rejects.toMatchObject({
    code: 'BAD_INPUT',
    message: expect.stringContaining('ACTIVE'),
  });
  await expect(without('tiny/77')).rejects.toThrow('--without tiny/77: there is no such version');
  await rename(join(config.dataDir, 'bundles/tiny/1'), join(root, 'gone'));
  const missing = makeBackup(config, join(root, 'third'), quiet);
  await expect(missing).rejects.toThrow(/leave it out by --without tiny\/1$/u);
  const { bundles } = await without('tiny/1');
  await rename(join(root, 'gone'), join(config.dataDir, 'bundles/tiny/1'));
  const { contents } = await readContents(join(root, 'third'));
  expect(contents.bundles.map(({ task, version }) => `${task}/${version}`)).toEqual(['tiny/2']);
  expect(bundles).toBe(1);
  expect(contents.tables.find(({ table }) => table === 'model_version')!.rows).toBe(2);
  await rm(join(root, 'third'), { recursive: true });
});
