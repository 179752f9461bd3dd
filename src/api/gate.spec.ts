/** Mercurius behind the gate and the guard, with resolvers and principals of the test. */
import Fastify, { type FastifyInstance } from 'fastify';
import mercurius, { type MercuriusOptions } from 'mercurius';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Subject, throwError } from 'rxjs';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { LOCAL, NO_LIMITS, type Principal, type Role, ROLES, unauthenticated } from '../access/principal.js';
import { FewloopError } from '../common/errors.js';
import { NO_METRICS } from '../common/metrics/metrics.js';
import { Gate } from './gate.js';
import { answerFormatter, graphqlOptions } from './graphql-options.js';
import { type Access, guardSchema } from './guard.js';
import { isSubscriber, serveSubscriptions } from './sockets.js';
import { payloads } from './subscriptions.js';

const TASKS = [{ name: 'reviews' }, { name: 'secrets' }];
const activated$ = new Subject<object>();
const dead = new Set<string>();
/** Of what there is to tell of. */
let failure: Error | undefined;
let open = 0;

/** A token is a role, with the tasks behind a colon: `CLIENT:reviews`. */
async function authenticate(authorization: unknown): Promise<Principal> {
  const [, role, tasks] = /^Bearer (\w+)(?::(\w+))?$/u.exec(String(authorization)) ?? [];
  if (!ROLES.includes(role as Role)) throw unauthenticated('no');
  return {
    name: `key:${role}`,
    role: role as Role,
    tasks: tasks?.split('+') ?? null,
    limits: NO_LIMITS,
    expiresAt: null,
  };
}

const access = (required: boolean) =>
  ({
    authenticator: {
      required,
      authenticate: required ? authenticate : async () => LOCAL,
      isAlive: ({ name }: Principal) => !dead.has(name),
    },
    taskOf: { find: async () => undefined },
    usage: {
      takeRequest: async () => undefined,
      openSubscription: async () => {
        open += 1;
        return () => (open -= 1);
      },
    },
  }) as unknown as Access;

const servers: FastifyInstance[] = [];
const sockets: WebSocket[] = [];

async function serve({ required = true, trusted = '' } = {}): Promise<FastifyInstance> {
  const server = Fastify({ http: { shouldUpgradeCallback: isSubscriber } });
  const rights = access(required);
  const gate = new Gate(rights, trusted);
  gate.guard(server);
  serveSubscriptions(server, gate, answerFormatter(NO_METRICS));
  const {
    typeDefs,
    hooks,
    transformSchema: _,
    resolvers,
    ...options
  } = graphqlOptions(NO_METRICS, rights, gate) as unknown as {
    typeDefs: string;
    hooks: Record<string, never>;
    transformSchema: unknown;
    resolvers: object;
  };
  await server.register(mercurius, {
    ...(options as MercuriusOptions),
    schema: typeDefs,
    resolvers: {
      ...resolvers,
      Query: { tasks: () => TASKS, task: (_: unknown, { name }: { name: string }) => ({ name, pool: { total: 1 } }) },
    },
  } as MercuriusOptions);
  for (const [name, hook] of Object.entries(hooks)) server.graphql.addHook(name as 'preParsing', hook);
  const { modelActivated } = server.graphql.schema.getSubscriptionType()!.getFields();
  modelActivated!.subscribe = () => payloads('modelActivated', failure ? throwError(() => failure) : activated$);
  guardSchema(server.graphql.schema, rights);
  servers.push(server);
  return server;
}

const shared = serve();

async function ask(
  query: unknown,
  token = 'CLIENT',
  { server = shared, headers = {}, method = 'POST', url = '/graphql' } = {},
) {
  const payload = method === 'POST' ? JSON.stringify(Array.isArray(query) ? query : { query }) : undefined;
  const response = await (
    await server
  ).inject({
    method: method as 'POST',
    url,
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}`, ...headers },
    ...(payload !== undefined && { payload }),
  });
  const { data, errors } = response.json<{
    data: unknown;
    errors?: { message: string; extensions: { code: string } }[];
  }>();
  return { status: response.statusCode, data, codes: errors?.map(({ extensions }) => extensions.code), errors };
}

afterEach(() => {
  dead.clear();
  failure = undefined;
  for (const socket of sockets.splice(0)) socket.close();
});
afterAll(() => Promise.all(servers.map((server) => server.close())));

describe('over HTTP', () => {
  it('answers whom it knows, again and again', async () => {
    // The second time the query is compiled.
    for (let i = 0; i < 3; i++) {
      expect(await ask('{ tasks { name } }')).toEqual({ status: 200, data: { tasks: TASKS } });
      expect(await ask('{ tasks { name } }', 'CLIENT:reviews')).toMatchObject({ data: { tasks: [TASKS[0]] } });
      expect(await ask('{ task(name: "reviews") { pool { total } } }')).toMatchObject({ codes: ['FORBIDDEN'] });
      expect(await ask('{ task(name: "reviews") { pool { total } } }', 'LABELER')).toMatchObject({ codes: undefined });
    }
  });

  it('answers nobody else', async () => {
    expect(await ask('{ tasks { name } }', 'NOBODY')).toMatchObject({
      status: 401,
      data: null,
      codes: ['UNAUTHENTICATED'],
    });
    const headers = { upgrade: 'websocket' };
    const url = `/graphql?query=${encodeURIComponent('{ tasks { name } }')}`;
    expect(await ask('', 'NOBODY', { method: 'GET', headers, url })).toMatchObject({ codes: ['UNAUTHENTICATED'] });
  });

  it('shows a CLIENT nothing of the schema', async () => {
    expect(await ask('{ __schema { types { name } } }')).toMatchObject({ codes: ['FORBIDDEN'] });
    expect(await ask('{ ... { __type(name: "Task") { name } } }')).toMatchObject({ codes: ['FORBIDDEN'] });
    expect(await ask('{ __schema { types { name } } }', 'LABELER')).toMatchObject({ status: 200, codes: undefined });
    expect((await ask('{ taskss { name } }')).errors![0]!.message).not.toContain('Did you mean');
    expect((await ask('{ taskss { name } }', 'LABELER')).errors![0]!.message).toContain('Did you mean');
  });

  it.each([
    ['aliases of __typename', `{ tasks { ${'a: __typename '.repeat(101)} } }`, 'QUERY_TOO_COMPLEX'],
    ['fields that are one', `{ tasks { ${'name '.repeat(6000)} } }`, 'QUERY_TOO_COMPLEX'],
    ['directives', `{ tasks { name ${'@include(if: true) '.repeat(60)} } }`, 'QUERY_TOO_COMPLEX'],
    ['a batch', [{ query: '{ tasks { name } }' }], 'BAD_INPUT'],
  ])('refuses %s', async (_, query, code) => {
    expect(await ask(query)).toMatchObject({ data: null, codes: [code] });
  });

  it('refuses what a page of somebody else can send', async () => {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x']) {
      expect(await ask('{ tasks { name } }', 'CLIENT', { headers: { 'content-type': type } })).toMatchObject({
        codes: ['BAD_INPUT'],
      });
    }
    const get = { method: 'GET', url: `/graphql?query=${encodeURIComponent('{ tasks { name } }')}` };
    const plain = { 'content-type': '' };
    expect(await ask('', 'CLIENT', { ...get, headers: plain })).toMatchObject({ codes: ['BAD_INPUT'] });
    const preflight = { ...plain, 'graphql-require-preflight': '1' };
    expect(await ask('', 'CLIENT', { ...get, headers: preflight })).toMatchObject({ data: { tasks: TASKS } });
  });

  it('without access control answers to loopback names alone', async () => {
    const server = serve({ required: false });
    for (const host of ['localhost:3000', '127.0.0.1', '[::1]:3000']) {
      expect(await ask('{ tasks { name } }', '', { server, headers: { host } })).toMatchObject({
        data: { tasks: TASKS },
      });
    }
    const foreign: Record<string, string>[] = [
      { host: 'rebound.example' },
      { origin: 'https://evil.example' },
      { origin: 'null' },
    ];
    for (const headers of foreign) {
      const answer = await ask('{ tasks { name } }', '', { server, headers });
      expect(answer).toMatchObject({ data: null, codes: ['FORBIDDEN'] });
    }
  });

  it('takes trusted documents alone from a CLIENT, where there are some', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'fewloop-trusted-'));
    const trusted = join(folder, 'trusted.json');
    writeFileSync(trusted, JSON.stringify([createHash('sha256').update('{ tasks { name } }').digest('hex')]));
    const server = serve({ trusted });
    expect(await ask('{ tasks { name } }', 'CLIENT', { server })).toMatchObject({ data: { tasks: TASKS } });
    for (let i = 0; i < 2; i++) {
      expect(await ask('{ tasks { kind } }', 'CLIENT', { server })).toMatchObject({ codes: ['FORBIDDEN'] });
      expect(await ask('{ tasks { __typename } }', 'LABELER', { server })).toMatchObject({ codes: undefined });
    }
    writeFileSync(trusted, '["no hash"]');
    expect(() => new Gate(access(true), trusted)).toThrow('FEWLOOP_TRUSTED_DOCUMENTS');
    rmSync(folder, { recursive: true });
  });
});

describe('over a socket', () => {
  interface Talk {
    heard: Record<string, unknown>[];
    closed: Promise<[number, string]>;
    say(message: object): void;
    leave(): void;
  }

  async function connect(token: string | null): Promise<Talk> {
    const server = await shared;
    if (!server.server.listening) await server.listen({ port: 0, host: '127.0.0.1' });
    const { port } = server.server.address() as AddressInfo;
    const socket = new WebSocket(`ws://127.0.0.1:${port}/graphql`, 'graphql-transport-ws');
    sockets.push(socket);
    const heard: Record<string, unknown>[] = [];
    socket.on('message', (data: Buffer) => heard.push(JSON.parse(data.toString()) as Record<string, unknown>));
    const closed = new Promise<[number, string]>((done) =>
      socket.once('close', (code, reason) => done([code, reason.toString()])),
    );
    await new Promise((done) => socket.once('open', done));
    const say = (message: object) => socket.send(JSON.stringify(message));
    if (token !== null) say({ type: 'connection_init', payload: { authorization: `Bearer ${token}` } });
    return { heard, closed, say, leave: () => socket.terminate() };
  }

  const subscribe = ({ say }: Talk, query: unknown) => say({ id: '1', type: 'subscribe', payload: { query } });
  const last = ({ heard }: Talk) => JSON.stringify(heard.at(-1) ?? {});
  const EVENT = { task: 'reviews', version: 2 };

  it('closes where it is not said who it is, or nobody whom it knows', async () => {
    expect(await (await connect('NOBODY')).closed).toEqual([4401, 'UNAUTHENTICATED: no']);
    const silent = await connect(null);
    subscribe(silent, 'subscription { modelActivated { version } }');
    await silent.closed;
    expect(JSON.stringify(silent.heard)).not.toContain('modelActivated');
  });

  it('tells what happens to the tasks that may be seen', async () => {
    const talk = await connect('CLIENT:reviews');
    await expect.poll(() => last(talk)).toContain('connection_ack');
    subscribe(talk, 'subscription { modelActivated { version } }');
    await expect.poll(() => activated$.observed).toBe(true);
    activated$.next({ task: 'secrets', version: 1 });
    activated$.next(EVENT);
    await expect.poll(() => last(talk)).toContain('"version":2');
    expect(JSON.stringify(talk.heard)).not.toContain('"version":1');
    talk.say({ id: '1', type: 'complete' });
    await expect.poll(() => [activated$.observed, open]).toEqual([false, 0]);
  });

  it('ends with the key', async () => {
    const talk = await connect('ENGINEER');
    await expect.poll(() => last(talk)).toContain('connection_ack');
    subscribe(talk, 'subscription { modelActivated { report } }');
    await expect.poll(() => activated$.observed).toBe(true);
    dead.add('key:ENGINEER');
    await expect.poll(() => last(talk), { timeout: 5000 }).toContain('UNAUTHENTICATED');
    expect([activated$.observed, open]).toEqual([false, 0]);
    subscribe(talk, 'subscription { modelActivated { version } }');
    await expect.poll(() => JSON.stringify(talk.heard).match(/UNAUTHENTICATED/gu)).toHaveLength(2);
  });

  it.each([
    [
      'a field of another role',
      'subscription { modelActivated { ...F } } fragment F on ModelVersion { report }',
      'FORBIDDEN',
    ],
    ['what the schema lacks', 'subscription { modelActivated { nothing } }', 'BAD_INPUT'],
    ['too many aliases', `subscription { modelActivated { ${'a: version '.repeat(101)} } }`, 'QUERY_TOO_COMPLEX'],
    ['what is no document', 'subscription { ', 'BAD_INPUT'],
    ['an event of nothing', 'subscription A { modelActivated { version } } subscription B { __typename }', 'BAD_INPUT'],
    ['a query', '{ tasks { name } }', 'BAD_INPUT'],
    ['what may be nothing', 'subscription { modelActivated @skip(if: true) { version } }', 'BAD_INPUT'],
    [
      'what may be nothing, through fragments',
      'subscription { ...F } fragment F on Subscription { ... { ... @include(if: false) { modelActivated { version } } } }',
      'BAD_INPUT',
    ],
  ])('refuses %s', async (_, query, code) => {
    const talk = await connect('CLIENT');
    await expect.poll(() => last(talk)).toContain('connection_ack');
    subscribe(talk, query);
    await expect.poll(() => last(talk)).toContain(code);
    expect(activated$.observed).toBe(false);
    const [{ extensions }] = talk.heard.at(-1)!['payload'] as [{ extensions: { code: string } }];
    expect(extensions.code).toBe(code);
  });

  it('fails as a query would: with a code, and without detail where it is not the caller’s to mend', async () => {
    const talk = await connect('CLIENT');
    await expect.poll(() => last(talk)).toContain('connection_ack');
    failure = new FewloopError('TASK_NOT_FOUND', 'there is no task x');
    subscribe(talk, 'subscription { modelActivated { version } }');
    await expect.poll(() => last(talk)).toContain('TASK_NOT_FOUND');
    expect(last(talk)).toContain('there is no task x');
    failure = new Error('secret');
    subscribe(talk, 'subscription { modelActivated { version } }');
    await expect.poll(() => last(talk)).toContain('INTERNAL');
    expect(JSON.stringify(talk.heard)).not.toContain('secret');
    expect(open).toBe(0);
  });

  it.each<[string, unknown]>([
    ['a document in place of a query', { id: '1', type: 'subscribe', payload: { query: { kind: 'Document' } } }],
    ['no payload', { id: '1', type: 'subscribe', payload: null }],
    ['nothing', null],
    ['another type', { type: 'start' }],
  ])('ends where it is told %s', async (_, message) => {
    const talk = await connect('CLIENT');
    await expect.poll(() => last(talk)).toContain('connection_ack');
    talk.say(message as object);
    expect((await talk.closed)[0]).toBe(4400);
  });

  it('keeps nothing of a client that is gone, whose ids were one', async () => {
    const talk = await connect('CLIENT');
    await expect.poll(() => last(talk)).toContain('connection_ack');
    for (let i = 0; i < 10; i++) {
      subscribe(talk, 'subscription { modelActivated { version } }');
      talk.say({ id: '1', type: 'complete' });
    }
    subscribe(talk, 'subscription { modelActivated { version } }');
    await expect.poll(() => activated$.observed).toBe(true);
    talk.leave();
    await expect.poll(() => [activated$.observed, open]).toEqual([false, 0]);
  });

  it('is for those who speak its protocol, at its path', async () => {
    const server = await shared;
    const { port } = server.server.address() as AddressInfo;
    const outcome = (path: string, protocol: string) =>
      new Promise((resolve) => {
        const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, protocol);
        socket.once('close', resolve);
        socket.on('error', (error) => resolve(error.message));
      });
    expect(await outcome('/graphql', 'graphql-ws')).toBe('Server sent no subprotocol');
    expect(await outcome('/other', 'graphql-transport-ws')).toContain('404');
  });

  it('leaves a request that offers another upgrade a request', async () => {
    const server = await shared;
    const { port } = server.server.address() as AddressInfo;
    const body = JSON.stringify({ query: '{ tasks { name } }' });
    const headers = {
      authorization: 'Bearer CLIENT',
      'content-type': 'application/json',
      'content-length': body.length,
      connection: 'Upgrade, HTTP2-Settings',
      upgrade: 'h2c',
      'http2-settings': 'AAMAAABkAAQAAP__',
    };
    // Its body comes when the head has been read.
    const begun = once(server.server, 'request');
    const answer = await new Promise<string>((resolve, reject) => {
      const asked = request({ port, path: '/graphql', method: 'POST', headers }, (response) => {
        let text = '';
        response.on('data', (data: Buffer) => (text += data.toString()));
        response.on('end', () => resolve(text));
      });
      asked.on('error', reject).flushHeaders();
      void begun.then(() => asked.end(body));
    });
    expect(JSON.parse(answer)).toEqual({ data: { tasks: TASKS } });
  });
});
