/**
 * The previous release's database and bundles under this one: two replicas are replaced one by one under load, and back
 * again. FEWLOOP_UPGRADE_FROM names another commit to come from. The steps follow each other.
 */
import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDatabase } from '../fixtures/database.js';
import { classify, Load, type Answer } from '../fixtures/load.js';
import { build, previousRef, type Build } from '../fixtures/previous-release.js';
import { Rotation, Writer } from '../fixtures/rotation.js';
import { makeDataDir, startServiceProcess, type ServiceProcess } from '../fixtures/service-process.js';

const TASK = `name: reviews
kind: single-label
labels: [{name: positive, words: [好]}, {name: negative, words: [差]}]
templates: ["这是一条{mask}评。{text}", "{text} 总之很{mask}。"]
maxLength: 32
learning: {budgetSeconds: 10, trigger: {newLabels: null, schedule: null}}
`;
const ASKED = ['味道很好，下次还来', '太差了，等了一个小时', '一般吧', '房间干净，服务热情'];
const EXAMPLES = ['手机', '衣服', '水果', '酒店', '书', '电脑', '牛奶', '外卖'].flatMap((name) => [
  { text: `${name}很好，满意，下次还买`, labels: ['positive'], split: 'TRAIN' },
  { text: `${name}太差了，失望，再也不买`, labels: ['negative'], split: 'TRAIN' },
]);
const STATE =
  '{ task(name: "reviews") { activeVersion { version } examples { train dev test } runs { state error } } }';

interface State {
  activeVersion: { version: number };
  examples: { train: number; dev: number; test: number };
  runs: { state: string; error: string | null }[];
}

const ref = previousRef();

describe.skipIf(ref === null)(`from ${ref?.slice(0, 10)}`, () => {
  let previous: Build;
  let database: Awaited<ReturnType<typeof createDatabase>>;
  let dataDir: string;
  let before: Answer[];
  const rotation = new Rotation();
  const writer = new Writer(rotation, 'reviews');

  // Numbers are compared: what is fastest here may be another precision after a restart.
  const start = (main?: string) =>
    startServiceProcess(
      dataDir,
      undefined,
      { DATABASE_URL: database.url, FEWLOOP_PRECISION: 'fp32', MALLOC_TRIM_THRESHOLD_: '131072' },
      main,
    );
  const state = async () => (await rotation.request<{ task: State }>(STATE)).task;

  /** Each replica in turn, as a roll-out does it: the new one is ready, the old one gets no more requests and ends. */
  async function replaceAll(main?: string): Promise<void> {
    for (const old of rotation.replicas.slice()) {
      const fresh = await start(main);
      await expect.poll(() => ready(fresh), { timeout: 60_000, interval: 100 }).toBe(200);
      rotation.replicas.push(fresh);
      rotation.replicas.splice(rotation.replicas.indexOf(old), 1);
      expect(await old.end()).toBe(0);
    }
  }

  /** What failed meanwhile. */
  async function underLoad(change: () => Promise<void>): Promise<string[]> {
    const load = new Load(rotation, 'reviews', ASKED);
    const writing = writer.write();
    await load.more(50);
    await change();
    const answered = writer.answered;
    await load.more(100);
    await expect.poll(() => writer.answered - answered, { timeout: 60_000 }).toBeGreaterThan(2);
    await load.stop();
    await writing.stop();
    expect(Math.max(...load.answers.map((answers) => difference(answers, before)))).toBeLessThan(1e-4);
    return [...load.failures, ...writer.failures];
  }

  /** Nothing that was acknowledged is gone, and the ledger holds. */
  async function expectKept(): Promise<void> {
    const { activeVersion, examples } = await state();
    expect(activeVersion.version).toBe(2);
    expect(examples.train + examples.dev + examples.test).toBe(EXAMPLES.length + writer.answered);
    const { verifyLedger } = await rotation.request<{ verifyLedger: { entries: number; brokenAt: number | null } }>(
      '{ verifyLedger { entries brokenAt } }',
    );
    expect(verifyLedger).toEqual({ entries: 2, brokenAt: null });
    await expect
      .poll(async () => (await rotation.request<Stream>(STREAM)).task.stream, { timeout: 60_000 })
      .toEqual({ pending: 0, scored: writer.ingested, failed: 0 });
  }

  beforeAll(async () => {
    previous = build(ref!);
    database = await createDatabase();
    dataDir = makeDataDir();
    rotation.replicas.push(await start(previous.main));
  });

  afterAll(async () => {
    await Promise.all(rotation.replicas.map((replica) => replica.kill()));
    previous?.remove();
    await database?.drop();
    if (dataDir) rmSync(dataDir, { recursive: true, force: true });
  });

  it('the previous release has a trained version, answers and a ledger', async () => {
    const apply = 'mutation ($definition: String!) { applyTask(definition: $definition) { name } }';
    await rotation.request(apply, { definition: TASK });
    const add =
      'mutation ($examples: [ExampleInput!]!) { importExamples(task: "reviews", examples: $examples) { added } }';
    await rotation.request(add, { examples: EXAMPLES });
    await rotation.request('mutation { startRetrain(task: "reviews") { id } }');
    await expect
      .poll(async () => (await state()).runs, { timeout: 300_000, interval: 500 })
      .toMatchObject([{ state: 'SUCCEEDED', error: null }]);
    const promotions = '{ task(name: "reviews") { promotions { id } } }';
    const { task } = await rotation.request<{ task: { promotions: { id: string }[] } }>(promotions);
    const approve = 'mutation ($id: ID!) { approvePromotion(id: $id, override: true, comment: "a test") { decision } }';
    await rotation.request(approve, { id: task.promotions[0]!.id });
    before = await classify(rotation, 'reviews', ASKED);
    expect(before.map(({ modelVersion }) => modelVersion)).toEqual([2, 2, 2, 2]);
    const second: ServiceProcess = await start(previous.main);
    await expect.poll(() => ready(second), { timeout: 60_000 }).toBe(200);
    rotation.replicas.push(second);
    expect(await underLoad(async () => undefined)).toEqual([]);
    await expectKept();
  });

  it('is replaced by this one under load: nothing fails, the same answers', async () => {
    expect(await underLoad(() => replaceAll())).toEqual([]);
    await expectKept();
  });

  it('and comes back under load', async () => {
    expect(await underLoad(() => replaceAll(previous.main))).toEqual([]);
    await expectKept();
  });
});

interface Stream {
  task: { stream: { pending: number; scored: number; failed: number } };
}
const STREAM = '{ task(name: "reviews") { stream { pending scored failed } } }';

async function ready({ url }: ServiceProcess): Promise<number> {
  return (await fetch(new URL('/health/ready', url))).status;
}

/** The largest one of two lists of probabilities. */
function difference(a: Answer[], b: Answer[]): number {
  const differences = a.flatMap(({ modelVersion, probabilities }, i) =>
    modelVersion === b[i]!.modelVersion
      ? Object.entries(probabilities).map(([label, value]) => Math.abs(value - b[i]!.probabilities[label]!))
      : [1],
  );
  return Math.max(...differences);
}
