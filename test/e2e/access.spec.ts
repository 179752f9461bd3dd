/** Access control of the whole service: keys, roles and tasks on two replicas, limits, and what a caller may not send. */
import { createClient, type Client } from 'graphql-ws';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { graphqlClient, type GraphqlAnswer, type GraphqlClient } from '../fixtures/graphql.js';
import { type Service, startService } from '../fixtures/service.js';

const ADMIN = 'the-admin-key-of-this-test-is-long-enough';
const PATIENCE = { timeout: 10_000 };
const TRUSTED = '{ tasks { name } }';
const taskFile = (name: string, maxLength = 64) => `name: ${name}
kind: single-label
labels:
  - {name: positive, words: [好]}
  - {name: negative, words: [差]}
templates: ["这是一条{mask}评。{text}", "{text} 总之很{mask}。"]
maxLength: ${maxLength}
`;
const CREATE = `mutation ($name: String!, $role: Role!, $tasks: [String!], $requests: Int, $tokens: Int, $subscriptions: Int) {
  createKey(name: $name, role: $role, tasks: $tasks, requestsPerMinute: $requests, tokensPerMinute: $tokens,
    subscriptions: $subscriptions) { key accessKey { name secrets { id } } }
}`;
const ACTIVATED = 'subscription { modelActivated { version } }';
const CLASSIFY = `query ($task: String!, $inputs: [TextInput!]!) { classify(task: $task, inputs: $inputs) { label } }`;

let one: Service;
let other: Service;
let admin: GraphqlClient;
const keys: Record<string, string> = {};

async function makeKey(name: string, role: string, rest: object = {}): Promise<string> {
  const { createKey } = await admin.request<{ createKey: { key: string } }>(CREATE, { name, role, ...rest });
  return createKey.key;
}

const as = (name: string, service = one) => graphqlClient(service.url, keys[name]);
const codes = ({ errors }: GraphqlAnswer) => errors?.map(({ extensions }) => extensions.code);

beforeAll(async () => {
  const env = { FEWLOOP_AUTH: 'required', FEWLOOP_ADMIN_KEY: ADMIN, FEWLOOP_MAX_REQUEST_TOKENS: '20000' };
  one = await startService({ ...env, FEWLOOP_REQUEST_TIMEOUT_S: '1' });
  const trusted = join(one.shared['FEWLOOP_DATA_DIR']!, 'trusted.json');
  writeFileSync(
    trusted,
    JSON.stringify([TRUSTED, ACTIVATED].map((document) => createHash('sha256').update(document).digest('hex'))),
  );
  other = await startService({ ...one.shared, ...env, FEWLOOP_TRUSTED_DOCUMENTS: trusted });
  admin = graphqlClient(one.url, ADMIN);
  for (const name of ['reviews', 'secrets']) {
    await admin.request('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', {
      definition: taskFile(name),
    });
  }
  for (const role of ['client', 'labeler', 'engineer']) {
    keys[role] = await makeKey(role, role.toUpperCase());
    keys[`${role}-of-reviews`] = await makeKey(`${role}-of-reviews`, role.toUpperCase(), { tasks: ['reviews'] });
  }
});
afterAll(async () => {
  await other?.close();
  await one?.close();
});

describe('who asks', () => {
  it.each([
    ['nothing', {}],
    ['a made-up key', { authorization: `Bearer fwl_0123456789abcdef_${'x'.repeat(43)}` }],
    ['another scheme', { authorization: `Basic ${ADMIN}` }],
    ['a key in part', { authorization: `Bearer ${ADMIN.slice(0, -1)}` }],
  ])('with %s: 401, UNAUTHENTICATED, nothing answered', async (_, headers) => {
    const response = await fetch(one.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(headers as Record<string, string>) },
      body: JSON.stringify({ query: TRUSTED }),
    });
    expect(response.status).toBe(401);
    expect(await response.json()).toMatchObject({ data: null, errors: [{ extensions: { code: 'UNAUTHENTICATED' } }] });
  });

  it('a key is good at both replicas at once, is shown once and lists its uses', async () => {
    for (const service of [one, other]) {
      await expect.poll(async () => codes(await as('client', service).ask(TRUSTED)), PATIENCE).toBeUndefined();
    }
    const { keys: listed } = await admin.request<{ keys: { name: string; createdBy: string }[] }>(
      '{ keys { name createdBy } }',
    );
    expect(listed).toContainEqual({ name: 'client', createdBy: 'key:admin' });
    expect(codes(await admin.ask(CREATE, { name: 'client', role: 'ADMIN' }))).toEqual(['CONFLICT']);
  });

  it('rotated without a gap, then revoked, within seconds at every replica', async () => {
    const before = await makeKey('rotating', 'LABELER');
    const rotate = 'mutation ($grace: Int) { rotateKey(name: "rotating", graceMinutes: $grace) { key } }';
    const rotated = await admin.request<{ rotateKey: { key: string } }>(rotate, { grace: 5 });
    const after = rotated.rotateKey.key;
    expect(after).not.toBe(before);
    const answers = (key: string) => async () => codes(await graphqlClient(other.url, key).ask('{ tasks { name } }'));
    for (const key of [before, after]) await expect.poll(answers(key), PATIENCE).toBeUndefined();
    await admin.request(rotate, { grace: 0 });
    for (const key of [before, after]) await expect.poll(answers(key), PATIENCE).toEqual(['UNAUTHENTICATED']);
    const last = await makeKey('revoked', 'LABELER');
    await expect.poll(answers(last), PATIENCE).toBeUndefined();
    await admin.request('mutation { revokeKey(name: "revoked") { revokedBy } }');
    await expect.poll(answers(last), PATIENCE).toEqual(['UNAUTHENTICATED']);
    expect(codes(await admin.ask('mutation { rotateKey(name: "revoked") { key } }'))).toEqual(['CONFLICT']);
  });

  it('metrics are for an engineer of all tasks, health for everybody', async () => {
    const status = async (path: string, name?: string) => {
      const headers = name === undefined ? {} : { authorization: `Bearer ${keys[name]}` };
      return (await fetch(new URL(path, one.url), { headers: headers as Record<string, string> })).status;
    };
    expect(await status('/health/live')).toBe(200);
    expect(await status('/metrics')).toBe(401);
    expect(await status('/metrics', 'labeler')).toBe(403);
    expect(await status('/metrics', 'engineer-of-reviews')).toBe(403);
    expect(await status('/metrics', 'engineer')).toBe(200);
  });
});

describe('roles', () => {
  it.each([
    ['client', '{ tasks { name activeVersion { version state } } }'],
    ['client', '{ classify(task: "reviews", inputs: [{text: "好"}]) { label members { distribution { label } } } }'],
    ['labeler', '{ task(name: "reviews") { pool { total } versions { report } } }'],
    ['labeler', '{ reviewQueue(task: "reviews") { totalCount } }'],
    ['engineer', '{ replicas { id } }'],
  ])('%s may ask %s', async (name, query) => {
    // Twice: the second time it is compiled.
    for (let i = 0; i < 3; i++) expect(codes(await as(name).ask(query))).toBeUndefined();
  });

  it.each([
    ['client', '{ reviewQueue(task: "reviews") { totalCount } }'],
    ['client', '{ exportExamples(task: "reviews") { totalCount } }'],
    ['client', '{ task(name: "reviews") { activeVersion { report } } }'],
    ['client', '{ task(name: "reviews") { a: promotions { report } } }'],
    ['client', '{ task(name: "reviews") { ...F } } fragment F on Task { ...G } fragment G on Task { pool { total } }'],
    ['client', '{ task(name: "reviews") { ... on Task { ... { runs { error } } } } }'],
    ['client', '{ ...R } fragment R on Query { modelVersion(task: "reviews", version: 1) { report } }'],
    ['client', '{ task(name: "reviews") { name } task(name: "reviews") { definition } }'],
    ['client', '{ task(name: "reviews") { name definition @skip(if: true) } }'],
    ['labeler', '{ replicas { id } }'],
    ['labeler', 'mutation { startRetrain(task: "reviews") { id } }'],
    ['engineer', 'mutation { forget(task: "reviews", text: "x") { digest } }'],
    ['engineer', '{ keys { name } }'],
    ['engineer', 'mutation { createKey(name: "mine", role: ADMIN) { key } }'],
  ])('%s may not ask %s', async (name, query) => {
    for (let i = 0; i < 3; i++) {
      const answer = await as(name).ask(query);
      expect(codes(answer)).toContain('FORBIDDEN');
      expect(JSON.stringify(answer.data)).not.toMatch(/report|definition|total|error/u);
    }
  });

  it('the schema, and hints of it, are not for a client', async () => {
    expect(codes(await as('client').ask('{ __schema { types { name } } }'))).toEqual(['FORBIDDEN']);
    expect(codes(await as('client').ask('{ ...F } fragment F on Query { __type(name: "Task") { name } }'))).toEqual([
      'FORBIDDEN',
    ]);
    expect(codes(await as('labeler').ask('{ __schema { types { name } } }'))).toBeUndefined();
    const hint = async (name: string) => (await as(name).ask('{ task(name: "x") { poool } }')).errors![0]!.message;
    expect(await hint('labeler')).toContain('Did you mean');
    expect(await hint('client')).not.toContain('pool"');
  });
});

describe('tasks', () => {
  it('of others are not seen and not used', async () => {
    const client = as('client-of-reviews');
    expect((await client.ask('{ tasks { name } }')).data).toEqual({ tasks: [{ name: 'reviews' }] });
    expect(codes(await client.ask(CLASSIFY, { task: 'reviews', inputs: [{ text: '好' }] }))).toBeUndefined();
    for (const task of ['secrets', 'nobody']) {
      expect(codes(await client.ask(CLASSIFY, { task, inputs: [{ text: '好' }] }))).toEqual(['FORBIDDEN']);
      expect(codes(await client.ask('query ($n: String!) { task(name: $n) { name } }', { n: task }))).toEqual([
        'FORBIDDEN',
      ]);
    }
  });

  it('by id, by file and by subscription neither', async () => {
    const examples = ['positive', 'negative'].map((label) => ({ text: `${label}的`, labels: [label], split: 'TRAIN' }));
    await admin.request('mutation ($e: [ExampleInput!]!) { importExamples(task: "secrets", examples: $e) { added } }', {
      e: examples,
    });
    const { run } = await admin.request<{ run: { id: string } }>(
      'mutation { run: startRetrain(task: "secrets") { id } }',
    );
    const engineer = as('engineer-of-reviews');
    for (const id of [run.id, run.id.replaceAll('-', ''), `{${run.id}}`, run.id.toUpperCase(), 'x']) {
      expect(codes(await engineer.ask('mutation ($id: ID!) { cancelRun(id: $id) { id } }', { id }))).toEqual([
        'FORBIDDEN',
      ]);
      expect(codes(await engineer.ask('query ($id: ID!) { trainingRun(id: $id) { task } }', { id }))).toEqual([
        'FORBIDDEN',
      ]);
    }
    const apply = 'mutation ($d: String!) { applyTask(definition: $d) { name } }';
    expect(codes(await engineer.ask(apply, { d: taskFile('secrets') }))).toEqual(['FORBIDDEN']);
    expect(codes(await engineer.ask(apply, { d: taskFile('reviews') }))).toBeUndefined();
    expect(codes(await engineer.ask('{ replicas { id } }'))).toEqual(['FORBIDDEN']);
    expect(
      codes(await as('engineer').ask('mutation ($id: ID!) { cancelRun(id: $id) { id } }', { id: run.id })),
    ).toBeUndefined();
  });

  it('who acted is in the records', async () => {
    await as('labeler').request(
      'mutation { importExamples(task: "reviews", examples: [{text: "很好", labels: ["positive"], split: TRAIN}]) { added } }',
    );
    const { run } = await as('engineer').request<{ run: { id: string; startedBy: string } }>(
      'mutation { run: startRetrain(task: "reviews") { id startedBy } }',
    );
    expect(run.startedBy).toBe('key:engineer');
    await as('engineer').request('mutation ($id: ID!) { cancelRun(id: $id) { id } }', { id: run.id });
  });
});

describe('subscriptions', () => {
  const clients: Client[] = [];
  const connection = (key: string, service = one) => {
    const url = service.url.replace('http', 'ws');
    const client = createClient({
      url,
      webSocketImpl: WebSocket,
      retryAttempts: 0,
      connectionParams: { authorization: `Bearer ${key}` },
    });
    clients.push(client);
    return client;
  };
  /** What ends it: errors of the answer, or the socket's. */
  const outcome = (client: Client, query: string, onEvent: () => void = () => undefined) =>
    new Promise<unknown>((resolve) => {
      client.subscribe(
        { query },
        {
          next: ({ errors }) => (errors ? resolve(errors.map(({ extensions }) => extensions?.['code'])) : onEvent()),
          error: (error) => {
            const { code, reason } = error as { code?: number; reason?: string };
            resolve(
              Array.isArray(error)
                ? error.map(({ extensions }) => (extensions as { code: string }).code)
                : [code, reason],
            );
          },
          complete: () => resolve('complete'),
        },
      );
    });
  let maxLength = 64;
  /** Another length is another revision, whose version becomes active. */
  const activate = () =>
    admin.request('mutation ($definition: String!) { applyTask(definition: $definition) { name } }', {
      definition: taskFile('secrets', ++maxLength),
    });
  /** `begun` is 'open' with its first event, or what ended it before. */
  const watch = async (client: Client) => {
    let begun: unknown;
    const ended = outcome(client, ACTIVATED, () => (begun = 'open'));
    void ended.then((how) => (begun ??= how));
    // It has no sign that it has begun but its first event.
    await expect.poll(async () => (await activate(), begun), PATIENCE).toBeDefined();
    return { begun, ended };
  };
  const disposeAll = () => Promise.all(clients.splice(0).map(async (client) => client.dispose()));
  afterAll(disposeAll);

  it('without a key the connection is closed', async () => {
    const ended = await outcome(connection('nobody'), 'subscription { modelActivated { version } }');
    expect(ended).toEqual([4401, expect.stringContaining('UNAUTHENTICATED')]);
  });

  it.each([
    ['client', 'subscription { predictions(task: "reviews") { label } }', 'FORBIDDEN'],
    ['client', 'subscription { modelActivated { ...F } } fragment F on ModelVersion { report }', 'FORBIDDEN'],
    ['labeler-of-reviews', 'subscription { predictions(task: "secrets") { label } }', 'FORBIDDEN'],
    ['labeler', 'subscription { nothing }', 'BAD_INPUT'],
    ['labeler', `subscription { predictions(task: "reviews") { ${'a: label '.repeat(101)} } }`, 'QUERY_TOO_COMPLEX'],
  ])('%s: %s is %s', async (name, query, code) => {
    expect(await outcome(connection(keys[name]!), query)).toEqual([code]);
  });

  it('are bounded over both replicas, and free again when they end', async () => {
    const key = await makeKey('watcher', 'CLIENT', { subscriptions: 1 });
    await expect.poll(async () => codes(await graphqlClient(other.url, key).ask(TRUSTED)), PATIENCE).toBeUndefined();
    expect((await watch(connection(key))).begun).toBe('open');
    const further = async () => (await watch(connection(key, other))).begun;
    expect(await further()).toEqual(['OVERLOADED']);
    await disposeAll();
    await expect.poll(further, PATIENCE).toBe('open');
  });

  it('end with the key', async () => {
    const key = await makeKey('short-lived', 'CLIENT');
    const { begun, ended } = await watch(connection(key));
    expect(begun).toBe('open');
    await admin.request('mutation { revokeKey(name: "short-lived") { name } }');
    expect(await ended).toEqual(['UNAUTHENTICATED']);
  });
});

describe('limits', () => {
  it('of requests hold over both replicas, and say when to ask again', async () => {
    const key = await makeKey('busy', 'LABELER', { requests: 40 });
    const ask = async (service: Service) => {
      const answer = await graphqlClient(service.url, key).ask('{ tasks { name } }');
      return answer.errors?.[0]?.extensions ?? { code: 'OK' };
    };
    await expect.poll(async () => (await ask(other)).code, PATIENCE).toBe('OK');
    const answers = await Promise.all(Array.from({ length: 120 }, (_, i) => ask(i % 2 === 0 ? one : other)));
    const answered = answers.filter(({ code }) => code === 'OK').length;
    // A minute may end meanwhile.
    expect(answered).toBeGreaterThanOrEqual(30);
    expect(answered).toBeLessThanOrEqual(80);
    const refused = answers.find(({ code }) => code === 'OVERLOADED') as { retryAfterMs: number };
    expect(refused.retryAfterMs).toBeGreaterThan(0);
    expect(refused.retryAfterMs).toBeLessThanOrEqual(60_000);
  });

  it('of tokens: texts × members × tokens', async () => {
    keys['small'] = await makeKey('small', 'CLIENT', { tokens: 1000 });
    const inputs = (count: number) =>
      Array.from({ length: count }, (_, i) => ({ text: `第${i}条很好`.padEnd(42, '好') }));
    expect(codes(await as('small').ask(CLASSIFY, { task: 'reviews', inputs: inputs(20) }))).toEqual([
      'QUERY_TOO_COMPLEX',
    ]);
    const answers = [];
    for (let i = 0; i < 6; i++)
      answers.push(codes(await as('small').ask(CLASSIFY, { task: 'reviews', inputs: inputs(3) }))?.[0]);
    expect(answers[0]).toBeUndefined();
    expect(answers).toContain('OVERLOADED');
  });

  it('of ingested texts, as of classified ones', async () => {
    keys['feeder'] = await makeKey('feeder', 'CLIENT', { tokens: 1000 });
    const ingest = (from: number) => {
      const inputs = Array.from({ length: 4 }, (_, i) => ({ text: `第${from + i}条`.padEnd(60, '好') }));
      return as('feeder').ask(
        'mutation ($inputs: [TextInput!]!) { ingest(task: "reviews", inputs: $inputs) { accepted } }',
        { inputs },
      );
    };
    const answers: (string | undefined)[] = [];
    // Two members × 4 texts × 64 tokens: the second one of a minute, which may end in between, is too many.
    for (let i = 0; i < 4; i++) answers.push(codes(await ingest(10 * i))?.[0]);
    expect(answers[0]).toBeUndefined();
    expect(answers.filter((code) => code === 'OVERLOADED').length).toBeGreaterThanOrEqual(2);
  });

  it('of one request, under all its aliases together', async () => {
    const query = `query ($inputs: [TextInput!]!) {
      ${Array.from({ length: 10 }, (_, i) => `c${i}: classify(task: "reviews", inputs: $inputs) { label }`).join('\n')}
    }`;
    const inputs = Array.from({ length: 40 }, (_, i) => ({ text: `第${i}条`.padEnd(60, '好') }));
    expect(codes(await as('client').ask(query, { inputs }))).toContain('QUERY_TOO_COMPLEX');
  });
});

describe('what nobody may send', () => {
  const send = (headers: Record<string, string>, body: string, method = 'POST', url = one.url) =>
    fetch(url, {
      method,
      headers: { authorization: `Bearer ${keys['client']}`, ...headers },
      ...(body && { body }),
    }).then(async (response) => (await response.json()) as GraphqlAnswer);
  const body = JSON.stringify({ query: TRUSTED });

  it.each(['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x'])(
    'a form of another page: %s',
    async (type) => expect(codes(await send({ 'content-type': type }, body))).toEqual(['BAD_INPUT']),
  );

  it('a GET that a page could make', async () => {
    const url = `${one.url}?query=${encodeURIComponent(TRUSTED)}`;
    expect(codes(await send({}, '', 'GET', url))).toEqual(['BAD_INPUT']);
    expect(codes(await send({ 'graphql-require-preflight': '1' }, '', 'GET', url))).toBeUndefined();
  });

  it('several requests in one', async () => {
    expect(codes(await send({ 'content-type': 'application/json' }, `[${body},${body}]`))).toEqual(['BAD_INPUT']);
  });

  it('variables that are a list', async () => {
    const listed = JSON.stringify({ query: TRUSTED, variables: [{ a: 1 }] });
    expect(codes(await send({ 'content-type': 'application/json' }, listed))).toEqual(['BAD_INPUT']);
  });

  it('a query that is not trusted, where some are', async () => {
    expect(codes(await as('client', other).ask(TRUSTED))).toBeUndefined();
    expect(codes(await as('client', other).ask(`${TRUSTED} `))).toEqual(['FORBIDDEN']);
    expect(codes(await as('labeler', other).ask(`${TRUSTED} `))).toBeUndefined();
  });

  it('a body so slowly that it never ends', async () => {
    const { port } = new URL(one.url);
    const socket = connect(Number(port), '127.0.0.1');
    let answer = '';
    socket.on('data', (data) => (answer += data.toString()));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write(
      `POST /graphql HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${keys['client']}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{`,
    );
    const startedAt = performance.now();
    await closed;
    expect(answer).toMatch(/^HTTP\/1\.1 408/u);
    expect(performance.now() - startedAt).toBeLessThan(10_000);
  });

  it('an upgrade that is none', async () => {
    const answer = await new Promise<string>((resolve) => {
      const socket = connect(Number(new URL(one.url).port), '127.0.0.1');
      let text = '';
      socket.on('data', (data) => (text += data.toString()));
      socket.once('close', () => resolve(text));
      socket.write(
        `GET /graphql?query=${encodeURIComponent(TRUSTED)} HTTP/1.1\r\nhost: x\r\ngraphql-require-preflight: 1\r\nupgrade: websocket\r\nconnection: close\r\n\r\n`,
      );
    });
    expect(answer).toContain('UNAUTHENTICATED');
  });
});
