/** Secrets and texts are in no log, no error, no argument and no child's environment. */
import { readFileSync, rmSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { graphqlClient } from '../fixtures/graphql.js';
import { descendants } from '../fixtures/processes.js';
import { scrape } from '../fixtures/scrape.js';
import { makeDataDir, type ServiceProcess, startServiceProcess } from '../fixtures/service-process.js';

const ADMIN = 'admin-key-that-must-not-be-seen-0123456789';
const PASSWORD = 'kafka-password-that-must-not-be-seen';
const AWS_SECRET = 'aws-secret-that-must-not-be-seen';
const TEXT = '这句话不该出现在日志里';
const TASK = `name: reviews
kind: single-label
labels:
  - {name: positive, words: [好]}
  - {name: negative, words: [差]}
templates: ["这是一条{mask}评。{text}"]
`;

let dataDir: string;
let service: ServiceProcess;

beforeAll(async () => {
  dataDir = makeDataDir();
  service = await startServiceProcess(dataDir, undefined, {
    FEWLOOP_AUTH: 'required',
    FEWLOOP_ADMIN_KEY: ADMIN,
    KAFKA_PASSWORD: PASSWORD,
    AWS_SECRET_ACCESS_KEY: AWS_SECRET,
    FEWLOOP_LOG_LEVEL: 'trace',
  });
});
afterAll(async () => {
  await service?.end();
  rmSync(dataDir, { recursive: true, force: true });
});

it('are seen nowhere', async () => {
  await service.request('mutation ($d: String!) { applyTask(definition: $d) { name } }', { d: TASK });
  const made = await service.request<{ createKey: { key: string } }>(
    'mutation { createKey(name: "shop", role: LABELER) { key } }',
  );
  const shop = graphqlClient(service.url, made.createKey.key);
  const answers = [
    await shop.ask(`{ classify(task: "reviews", inputs: [{text: "${TEXT}"}]) { label } }`),
    await shop.ask(`mutation { ingest(task: "reviews", inputs: [{text: "${TEXT}"}]) { accepted } }`),
    await shop.ask(
      `mutation { importExamples(task: "reviews", examples: [{text: "${TEXT}", labels: ["nothing"]}]) { added } }`,
    ),
    // Statements that PostgreSQL refuses, and a query that is none.
    await shop.ask('query ($t: String!) { classify(task: $t, inputs: [{text: "x"}]) { label } }', { t: `${TEXT}\0` }),
    await shop.ask('query ($t: String!) { task(name: $t) { pool { total } } }', { t: `${TEXT}\0` }),
    await shop.ask(`{ classify(task: "reviews", inputs: [{text: "${TEXT}", oops: 1}]) { label } }`),
    await graphqlClient(service.url, `${ADMIN}x`).ask('{ tasks { name } }'),
  ];
  const refused = (code: string) => ({ data: null, errors: [{ extensions: { code } }] });
  expect(answers).toMatchObject([
    { data: { classify: [{ label: expect.stringMatching(/^(positive|negative)$/u) }] } },
    { data: { ingest: { accepted: 1 } } },
    { data: { importExamples: { added: 0 } } },
    refused('BAD_INPUT'),
    { data: { task: null } },
    refused('BAD_INPUT'),
    refused('UNAUTHENTICATED'),
  ]);
  const scored = { task: 'reviews', outcome: 'scored' };
  await expect
    .poll(async () => (await scrape(service.url, ADMIN)).value('fewloop_stream_records_total', scored))
    .toBe(1);
  // All that there is to see is seen: PostgreSQL's word on the statement that it refused is logged at level debug.
  await expect.poll(() => service.output()).toMatch(/"level":20,.*invalid byte sequence/u);
  const secrets = [ADMIN, PASSWORD, AWS_SECRET, made.createKey.key, made.createKey.key.split('_')[2]!];
  const children = descendants(Number(/"pid":(\d+)/u.exec(readFileSync(`${dataDir}/service.json`, 'utf8'))![1]));
  expect(children.length).toBeGreaterThan(0);
  for (const secret of secrets) {
    expect(service.output()).not.toContain(secret);
    expect(JSON.stringify(answers)).not.toContain(secret);
    for (const pid of children) {
      for (const file of ['cmdline', 'environ']) {
        expect(readFileSync(`/proc/${pid}/${file}`, 'utf8'), `${file} of a child`).not.toContain(secret);
      }
    }
  }
  expect(service.output()).not.toContain(TEXT);
});
