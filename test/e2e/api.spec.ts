/** Bad input of every kind through HTTP, against the whole service: answered with its code and field, nothing else harmed. */
import { createClient } from 'graphql-ws';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { WebSocket } from 'ws';
import type { GraphqlAnswer } from '../fixtures/graphql.js';
import { type Service, startService } from '../fixtures/service.js';

const TASK = `name: reviews
kind: single-label
labels:
  - {name: positive, words: [好]}
  - {name: negative, words: [差]}
templates: ["这是一条{mask}评。{text}", "{text} 总之很{mask}。"]
maxLength: 64
`;
const APPLY = 'mutation ($definition: String!) { applyTask(definition: $definition) { name revision } }';
const CLASSIFY = `query ($task: String!, $inputs: [TextInput!]!) {
  classify(task: $task, inputs: $inputs) { id label confidence distribution { label probability } modelVersion }
}`;
const IMPORT = `mutation ($task: String!, $examples: [ExampleInput!]!) {
  importExamples(task: $task, examples: $examples) { added updated unchanged rejected { index code message } }
}`;
const INGEST = `mutation ($task: String!, $inputs: [TextInput!]!) {
  ingest(task: $task, inputs: $inputs) { accepted duplicates rejected { index code message } }
}`;

interface ExportPage {
  nodes: { text: string }[];
  totalCount: number;
  pageInfo: { hasNextPage: boolean; endCursor: string | null };
}

let service: Service;

beforeAll(async () => {
  service = await startService({ FEWLOOP_MAX_BODY_BYTES: '2000000' });
  const { errors } = await service.ask(APPLY, { definition: TASK });
  if (errors) throw new Error(errors[0]?.message);
});

afterAll(() => service?.close());

const classify = (inputs: unknown, task: unknown = 'reviews') => service.ask(CLASSIFY, { task, inputs });

function only({ errors }: GraphqlAnswer) {
  expect(errors).toHaveLength(1);
  const { path, message, extensions } = errors![0]!;
  return { path, message, ...extensions };
}

describe('texts', () => {
  it.each([
    ['empty', ''],
    ['only whitespace', ' \t\n\u3000'],
    ['100,000 characters', '好'.repeat(100_000)],
    ['half of a surrogate pair', '好\ud83d'],
    ['U+0000', '好\u0000'],
  ])('%s: refused at its path', async (_, text) => {
    // More than once: a query is compiled when it is seen again, and must fail in the same way.
    for (let i = 0; i < 3; i++) {
      const answer = await classify([{ text: '好' }, { text }]);
      expect(only(answer)).toMatchObject({ path: ['classify', 1], code: 'BAD_INPUT', field: 'text' });
      expect(answer.data?.['classify']).toMatchObject([{ distribution: expect.any(Array) }, null]);
    }
  });

  it.each([
    ['control characters', '\u0007好\u001b[31m'],
    ['emoji', '👍🏽👨‍👩‍👧'],
    ['another language', 'Очень хорошо, merci beaucoup'],
    ['a line separator', '好\u2028很好'],
    ['characters that no vocabulary has', '𪚥𪚥𪚥'],
  ])('%s: answered', async (_, text) => {
    const { data, errors } = await classify([{ id: 'x', text }]);
    expect(errors).toBeUndefined();
    expect(data?.['classify']).toMatchObject([{ id: 'x', modelVersion: 1 }]);
  });

  it('one bad among 64: 63 answered, one error', async () => {
    const inputs = Array.from({ length: 64 }, (_, i) => ({ id: String(i), text: i === 40 ? '' : `第${i}条` }));
    const answer = await classify(inputs);
    expect(only(answer)).toMatchObject({ path: ['classify', 40], code: 'BAD_INPUT' });
    const answers = answer.data!['classify'] as unknown as ({ id: string } | null)[];
    expect(answers.map((a) => a?.id ?? null)).toEqual(inputs.map(({ id }, i) => (i === 40 ? null : id)));
  });
});

describe('requests', () => {
  it.each([
    ['a number for a text', [{ text: 5 }], 'inputs.0.text'],
    ['no text', [{}], 'inputs.0'],
    ['an unknown field', [{ text: '好', txt: '好' }], 'inputs.0'],
    ['a string for fields', [{ text: '好', fields: 'x' }], 'inputs.0.fields'],
    ['null', null, 'inputs'],
    ['10,000 texts', Array.from({ length: 10_000 }, () => ({ text: '好' })), 'inputs'],
  ])('%s: BAD_INPUT with the field', async (_, inputs, field) => {
    expect(only(await classify(inputs))).toMatchObject({ code: 'BAD_INPUT', field });
  });

  it.each([
    ['classify', CLASSIFY, { inputs: [{ text: '好' }] }],
    ['ingest', INGEST, { inputs: [{ text: '好' }] }],
    ['importExamples', IMPORT, { examples: [{ text: '好', labels: ['positive'] }] }],
    ['reviewQueue', 'query ($task: String!) { reviewQueue(task: $task) { totalCount } }', {}],
    ['exportExamples', 'query ($task: String!) { exportExamples(task: $task) { totalCount } }', {}],
    ['startRetrain', 'mutation ($task: String!) { startRetrain(task: $task) { id } }', {}],
    ['rollback', 'mutation ($task: String!) { rollback(task: $task, reason: "x") { version } }', {}],
    ['forget', 'mutation ($task: String!) { forget(task: $task, text: "好") { digest } }', {}],
  ])('%s of an unknown task', async (_, query, variables) => {
    expect(only(await service.ask(query, { task: 'nobody', ...variables }))).toMatchObject({ code: 'TASK_NOT_FOUND' });
  });

  it('an unknown task is null where it is looked up', async () => {
    expect(await service.ask('{ task(name: "nobody") { name } }')).toEqual({ data: { task: null } });
  });

  it.each([
    ['ingest', INGEST, 'inputs', { text: '好' }],
    ['importExamples', IMPORT, 'examples', { text: '好', labels: ['positive'] }],
  ])('%s of 10,000 texts', async (_, query, field, row) => {
    const rows = Array.from({ length: 10_000 }, () => row);
    expect(only(await service.ask(query, { task: 'reviews', [field]: rows }))).toMatchObject({
      code: 'BAD_INPUT',
      field,
    });
  });

  it('an id that stands twice is answered twice', async () => {
    const { data } = await classify(['好', '差'].map((text) => ({ id: '1', text })));
    expect(data?.['classify']).toMatchObject([{ id: '1' }, { id: '1' }]);
  });

  it('a name that PostgreSQL cannot hold', async () => {
    expect(only(await classify([{ text: '好' }], 'a\u0000'))).toMatchObject({ code: 'BAD_INPUT' });
  });

  it('a body that is too large, no JSON, or no query', async () => {
    const large = JSON.stringify({ query: CLASSIFY, variables: { inputs: [{ text: 'a'.repeat(2_100_000) }] } });
    for (const body of [
      large,
      '{"query": ',
      '[]',
      '{}',
      '{"query": 5}',
      '{"query": "{"}',
      '{"query": "{ nothing }"}',
    ]) {
      expect(only(await service.send(body))).toMatchObject({ code: 'BAD_INPUT', field: expect.any(String) });
    }
  });

  it('a query that is too deep or costs too much', async () => {
    const fields = Array.from({ length: 20 }, (_, i) => `f${i}: versions(first: 500) { version digest }`).join(' ');
    expect(only(await service.ask(`{ tasks { ${fields} } }`))).toMatchObject({ code: 'QUERY_TOO_COMPLEX' });
    const tokens = `{ ${Array.from({ length: 20_000 }, (_, i) => `a${i}: __typename`).join(' ')} }`;
    expect(only(await service.ask(tokens))).toMatchObject({ code: 'QUERY_TOO_COMPLEX' });
  });

  it('a deadline that has passed, a policy that the version lacks', async () => {
    const ask = (options: string) =>
      service.ask(`{ classify(task: "reviews", inputs: [{text: "好"}], options: {${options}}) { label } }`);
    expect(only(await ask('deadlineMs: 0'))).toMatchObject({ path: ['classify', 0], code: 'DEADLINE_EXCEEDED' });
    expect(only(await ask('deadlineMs: -1'))).toMatchObject({ code: 'BAD_INPUT', field: 'options.deadlineMs' });
    expect(only(await ask('policy: STUDENT'))).toMatchObject({ code: 'BAD_INPUT', field: 'policy' });
  });

  it.each([
    ['mutation { label(candidate: "x", labels: ["positive"]) { id } }', 'CANDIDATE_NOT_FOUND'],
    ['mutation { cancelRun(id: "x") { id } }', 'RUN_NOT_FOUND'],
    ['mutation { approvePromotion(id: "x") { id } }', 'PROMOTION_NOT_FOUND'],
    ['mutation { startShadow(task: "reviews", version: 9) { version } }', 'VERSION_NOT_FOUND'],
    ['mutation { startRetrain(task: "nobody") { id } }', 'TASK_NOT_FOUND'],
    ['{ reviewQueue(task: "reviews", first: -1) { totalCount } }', 'BAD_INPUT'],
    ['{ reviewQueue(task: "reviews", after: "x") { totalCount } }', 'BAD_INPUT'],
    ['{ exportExamples(task: "reviews", after: "x") { totalCount } }', 'BAD_INPUT'],
  ])('%s: %s', async (query, code) => {
    expect(only(await service.ask(query))).toMatchObject({ code });
  });
});

describe('task files, examples, the stream', () => {
  it('names the key that is mistyped', async () => {
    const answer = only(await service.ask(APPLY, { definition: TASK.replace('templates', 'templats') }));
    expect(answer).toMatchObject({ code: 'BAD_INPUT', field: 'templats' });
    expect(answer.message).toContain('templates');
  });

  it('refuses labels that are not of the task, row by row', async () => {
    const examples = [
      { text: '很好', labels: ['positive'], split: 'TRAIN' },
      { text: '很怪', labels: ['strange'] },
      { text: '', labels: ['positive'] },
    ];
    const { data } = await service.ask(IMPORT, { task: 'reviews', examples });
    expect(data?.['importExamples']).toMatchObject({
      added: 1,
      rejected: [
        { index: 1, code: 'BAD_INPUT' },
        { index: 2, code: 'BAD_INPUT' },
      ],
    });
    const again = await service.ask(IMPORT, { task: 'reviews', examples: examples.slice(0, 1) });
    expect(again.data?.['importExamples']).toMatchObject({ added: 0, unchanged: 1 });
  });

  it('counts an id once, within a request and across', async () => {
    const inputs = ['1', '2', '1'].map((id) => ({ id, text: `快递第${id}天` }));
    const first = await service.ask(INGEST, { task: 'reviews', inputs });
    expect(first.data?.['ingest']).toEqual({ accepted: 2, duplicates: 1, rejected: [] });
    const second = await service.ask(INGEST, { task: 'reviews', inputs });
    expect(second.data?.['ingest']).toEqual({ accepted: 0, duplicates: 3, rejected: [] });
    const counts = async () => {
      const { data } = await service.ask('{ task(name: "reviews") { stream { pending scored failed } } }');
      return (data?.['task'] as { stream?: Record<'pending' | 'scored' | 'failed', number> } | undefined)?.stream;
    };
    await vi.waitUntil(async () => (await counts())?.pending === 0, { timeout: 20_000 });
    expect(await counts()).toEqual({ pending: 0, scored: 2, failed: 0 });
  });

  it.each([
    ['ingest', INGEST, 'inputs', {}],
    ['importExamples', IMPORT, 'examples', { labels: ['positive'], split: 'TRAIN' }],
  ])('%s refuses bad texts row by row', async (name, query, field, rest) => {
    const bad = ['', ' \t\n\u3000', '好'.repeat(100_000), '好\ud83d', '好\u0000'];
    const rows = [...bad, '👍🏽'].map((text) => ({ ...rest, text }));
    type Result = Record<string, { rejected: { index: number; code: string }[] }>;
    const result = await service.request<Result>(query, { task: 'reviews', [field]: rows });
    const { rejected, ...counts } = result[name]!;
    expect(rejected.map(({ index, code }) => [index, code])).toEqual(bad.map((_, i) => [i, 'BAD_INPUT']));
    expect(Object.values(counts).reduce((sum: number, count) => sum + Number(count), 0)).toBe(1);
  });

  it('exports page by page what was imported, and forgets', async () => {
    const page = async (after: string | null) => {
      const query = `query ($after: String) { exportExamples(task: "reviews", first: 1, after: $after) {
        nodes { text labels split } totalCount pageInfo { hasNextPage endCursor }
      } }`;
      return (await service.request<{ exportExamples: ExportPage }>(query, { after })).exportExamples;
    };
    const first = await page(null);
    const second = await page(first.pageInfo.endCursor);
    expect([first, second]).toMatchObject([
      { totalCount: 2, pageInfo: { hasNextPage: true } },
      { totalCount: 2, pageInfo: { hasNextPage: false } },
    ]);
    const texts = [...first.nodes, ...second.nodes].map(({ text }) => text);
    expect(texts.toSorted()).toEqual(['很好', '👍🏽'].toSorted());
    const forgotten = await service.ask('mutation { forget(task: "reviews", text: "很好") { examples } }');
    expect(forgotten.data).toEqual({ forget: { examples: 1 } });
  });
});

describe('watching', () => {
  it('streams predictions of ingested texts', async () => {
    const client = createClient({ url: service.url.replace('http', 'ws'), webSocketImpl: WebSocket });
    const query = 'subscription { predictions(task: "reviews", perSecond: 50) { id label route } }';
    const events = client.iterate({ query });
    const first = events.next();
    await expect
      .poll(
        async () => {
          const inputs = [{ text: `质量不错 ${Date.now()}` }];
          await service.ask(INGEST, { task: 'reviews', inputs });
          return Promise.race([first.then(() => true), new Promise((resolve) => setTimeout(resolve, 200, false))]);
        },
        { timeout: 20_000 },
      )
      .toBe(true);
    expect((await first).value.data.predictions).toMatchObject({ id: expect.any(String), route: expect.any(String) });
    await client.dispose();
  });

  it('says that it is ready, and live', async () => {
    const health = (path: string) => fetch(new URL(`/health/${path}`, service.url)).then((response) => response.json());
    expect(await health('live')).toEqual({ status: 'live' });
    const part = { ok: true, required: true };
    const parts = { database: part, models: part, hosts: part, stream: { ok: true, required: false } };
    for (const status of ['ready', 'started']) expect(await health(status)).toEqual({ status, parts });
  });
});
