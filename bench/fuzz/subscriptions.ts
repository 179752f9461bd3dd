/**
 * The built service under sockets that say anything: subscriptions by the schema with fields, arguments and types that are
 * there and that are not, messages of graphql-transport-ws in any order and form, bytes that are none, ends without a word;
 * meanwhile there are predictions and activations to tell of. Failed is an answer with INTERNAL or without a code, a close
 * that says 1011 or 4500, no answer to a plain query within ten seconds, and sockets or subscriptions that outlive their clients.
 *   node bench/fuzz/subscriptions.ts [--seconds 600] [--seed 1]
 */
import * as fc from 'fast-check';
import { buildSchema, getNamedType, type GraphQLField, type GraphQLObjectType, isObjectType } from 'graphql';
import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { WebSocket } from 'ws';
import { fill, start, type Subject } from './subject.ts';

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '600' }, seed: { type: 'string', default: '1' } } });

const SOCKETS = 16;
const ROUND_MS = 30_000;
/** FEWLOOP_SUBSCRIPTIONS, unless it is set. */
const LIMIT = 100;
const PROTOCOL = 'graphql-transport-ws';
/** What a server closes with that has failed: WebSocket's own, and the protocol's. */
const DEFECTS = new Set([1011, 4500]);

type Frame = { text: string } | { bytes: Uint8Array };
interface Conversation {
  protocol: string | undefined;
  /** Said before anything else, and its acknowledgement awaited. */
  greeting: string | undefined;
  frames: Frame[];
  /** ms from the last frame to the end. */
  patience: number;
  rude: boolean;
}

const schema = buildSchema(readFileSync(join(import.meta.dirname, '../../test/contract/schema.graphql'), 'utf8'));

function selection(type: GraphQLObjectType, depth: number): fc.Arbitrary<string> {
  const pieces = Object.values(type.getFields()).map(({ name, type: of }) => {
    const inner = getNamedType(of);
    if (!isObjectType(inner)) return fc.constant(name);
    return depth === 0 ? fc.constant(`${name} { __typename }`) : selection(inner, depth - 1).map((set) => `${name} ${set}`);
  });
  const odd = fc.constantFrom('__typename', 'a: __typename', 'nothing', '...F', '... on Task { name }', '__schema { types { name } }');
  const piece = fc.oneof({ weight: 19, arbitrary: fc.oneof(...pieces) }, { weight: 1, arbitrary: odd });
  return fc.array(piece, { minLength: 1, maxLength: 12 }).map((set) => `{ ${set.join(' ')} }`);
}

function document(known: Record<string, string[]>): fc.Arbitrary<string> {
  const scalar = fc.oneof(
    fc.constantFrom(...[...known['task']!, ...known['run']!].map((value) => JSON.stringify(value))),
    fc.constantFrom('null', '-1', '0', '2147483648', '1e400', '[]', '{}', '$v', 'true', '""'),
    fc.string({ unit: 'binary' }).map((value) => JSON.stringify(value)),
  );
  const valid = (name: string) => (name === 'perSecond' ? fc.constantFrom('1', '5', '1000') : fc.constant(JSON.stringify(known[name]![0])));
  const argument = (name: string) =>
    fc.oneof({ weight: 4, arbitrary: valid(name) }, { weight: 1, arbitrary: scalar }).map((value) => `${name}: ${value}`);
  const field = ({ name, args, type }: GraphQLField<unknown, unknown>) => {
    const given = args.map((arg) => fc.option(argument(arg.name === 'id' ? 'run' : arg.name), { freq: 8, nil: undefined }));
    const named = fc.tuple(...given).map((all) => all.filter((arg) => arg !== undefined).map((arg) => arg.replace(/^run:/u, 'id:')));
    const inner = selection(getNamedType(type) as GraphQLObjectType, 2);
    return fc.tuple(named, inner).map(([all, set]) => `${name}${all.length ? `(${all.join(', ')})` : ''} ${set}`);
  };
  const fields = fc.oneof(...Object.values(schema.getSubscriptionType()!.getFields()).map(field));
  const one = fields.map((it) => `subscription { ${it} }`);
  const odd = fc.oneof(
    fc.tuple(fields, fields).map(([a, b]) => `subscription { ${a} b: ${b} }`),
    fields.map((it) => `subscription ($v: Boolean = true) { ...G } fragment G on Subscription { ... @skip(if: $v) { ${it} } }`),
    fields.map((it) => `subscription ($v: String, $w: Int = "x") { ${it} }`),
    fields.map((it) => `subscription { ${it} } fragment F on Prediction { ...F }`),
    fields.map((it) => `subscription { ...on Subscription @skip(if: true) { ${it} } }`),
    fields.map((it) => `query { ${it} }`),
    fc.tuple(fields, fc.nat(40)).map(([it, at]) => `subscription { ${it} }`.slice(0, at)),
    fields.map((it) => `subscription { ${`${it} `.repeat(200)} }`),
    fc.string({ unit: 'binary' }),
  );
  return fc.oneof({ weight: 4, arbitrary: one }, { weight: 1, arbitrary: odd });
}

function conversation(key: string, known: Record<string, string[]>): fc.Arbitrary<Conversation> {
  const id = fc.constantFrom('1', '2', '3', '', '__proto__');
  const anything = fc.jsonValue();
  const payload = fc.oneof(
    { weight: 6, arbitrary: document(known).map((query) => ({ query })) as fc.Arbitrary<unknown> },
    { weight: 2, arbitrary: fc.record({ query: document(known), variables: anything, operationName: anything, extensions: anything }) },
    { weight: 1, arbitrary: anything },
    { weight: 1, arbitrary: anything.map((query) => ({ query })) },
  );
  const json = (value: unknown): Frame => ({ text: JSON.stringify(value) });
  const asked = document(known).map((query) => json({ id: randomUUID(), type: 'subscribe', payload: { query } }));
  // Of these no message ends the socket.
  const proper = fc.oneof(
    { weight: 6, arbitrary: asked },
    { weight: 1, arbitrary: fc.constantFrom(json({ type: 'ping' }), json({ type: 'pong' }), json({ id: '1', type: 'complete' })) },
  );
  const wild: fc.Arbitrary<Frame> = fc.oneof(
    { weight: 12, arbitrary: fc.record({ id, type: fc.constant('subscribe'), payload }).map(json) },
    { weight: 6, arbitrary: fc.record({ id, type: fc.constant('complete') }).map(json) },
    { weight: 2, arbitrary: fc.constantFrom('connection_init', 'connection_terminate', 'stop', 'next', 'error').map((type) => json({ type })) },
    { weight: 1, arbitrary: fc.record({ id: anything, type: anything, payload: anything }, { requiredKeys: [] }).map(json) },
    { weight: 1, arbitrary: anything.map(json) },
    { weight: 1, arbitrary: fc.string({ unit: 'binary' }).map((text) => ({ text })) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 4096 }).map((bytes) => ({ bytes })) },
    { weight: 1, arbitrary: fc.constantFrom(10_000, 1_000_000, 3_000_000).map((length) => json({ id: 'long', type: 'subscribe', payload: { query: 'a '.repeat(length / 2) } })) },
  );
  // One id, asked and taken back and asked again, faster than anything ends.
  const again = fc.array(fc.constantFrom('subscribe', 'complete'), { maxLength: 20 }).map((types) =>
    types.map((type) => json({ id: 'again', type, payload: { query: 'subscription { modelActivated { version } }' } })),
  );
  const init = (payloadOf: unknown) => JSON.stringify({ type: 'connection_init', payload: payloadOf });
  const greeting = fc.oneof(
    { weight: 16, arbitrary: fc.constant(init({ authorization: `Bearer ${key}` })) as fc.Arbitrary<string | undefined> },
    { weight: 1, arbitrary: fc.constantFrom(init({ authorization: 'Bearer nobody' }), init(null), '{"type":"connection_init"}') },
    { weight: 1, arbitrary: fc.record({ authorization: anything }).map(init) },
    { weight: 1, arbitrary: fc.constant(undefined) },
  );
  return fc.record({
    protocol: fc.oneof({ weight: 12, arbitrary: fc.constant(PROTOCOL as string | undefined) }, { weight: 1, arbitrary: fc.constantFrom('graphql-ws', 'other', undefined) }),
    greeting,
    frames: fc.oneof({ weight: 3, arbitrary: fc.array(proper, { maxLength: 20 }) }, { weight: 2, arbitrary: fc.array(wild, { maxLength: 20 }) }, { weight: 1, arbitrary: again }),
    patience: fc.constantFrom(0, 20, 200, 1000),
    rude: fc.boolean(),
  });
}

const told = { conversations: 0, messages: 0, events: 0 };
const outcomes: Record<string, number> = {};
const failures: string[] = [];
const count = (outcome: string) => (outcomes[outcome] = (outcomes[outcome] ?? 0) + 1);

interface Message {
  type?: string;
  payload?: { errors?: GivenError[] } | GivenError[];
}
interface GivenError {
  message?: string;
  extensions?: { code?: string };
}

function hear(data: string, said: Conversation): void {
  told.messages += 1;
  const { type, payload } = JSON.parse(data) as Message;
  if (type === 'next') told.events += 1;
  const errors = Array.isArray(payload) ? payload : (payload?.errors ?? []);
  for (const { message, extensions } of errors) {
    const code = extensions?.code ?? `no code: ${message}`;
    count(code);
    if (code === 'INTERNAL' || extensions?.code === undefined) failures.push(`${data.slice(0, 400)} after ${JSON.stringify(said.frames).slice(0, 2000)}`);
  }
}

async function converse(url: string, said: Conversation): Promise<void> {
  const socket = new WebSocket(url.replace('http', 'ws'), said.protocol, { perMessageDeflate: false });
  let acknowledged: () => void;
  const greeted = new Promise<void>((resolve) => (acknowledged = resolve));
  const closed = new Promise<void>((resolve) => {
    socket.once('close', (code, reason) => {
      count(`closed ${code}`);
      if (DEFECTS.has(code)) failures.push(`closed ${code} ${reason.toString()} after ${JSON.stringify(said).slice(0, 2000)}`);
      acknowledged();
      resolve();
    });
  });
  socket.on('error', () => count('an error of the socket'));
  socket.on('message', (data: Buffer) => {
    const text = data.toString();
    if (text.includes('connection_ack')) acknowledged();
    hear(text, said);
  });
  await new Promise((resolve) => socket.once('open', resolve).once('close', resolve));
  if (said.greeting !== undefined && socket.readyState === WebSocket.OPEN) {
    socket.send(said.greeting);
    await Promise.race([greeted, sleep(2_000)]);
  }
  for (const frame of said.frames) {
    if (socket.readyState !== WebSocket.OPEN) break;
    socket.send('text' in frame ? frame.text : frame.bytes);
  }
  await Promise.race([closed, sleep(said.patience)]);
  if (said.rude) socket.terminate();
  else socket.close(1000);
  // Who does not answer a close is cut off by the client's library after half a minute.
  await closed;
  told.conversations += 1;
}

/** Something to tell of until `ended`: predictions all the time, an activation each second. */
async function traffic({ request }: Subject, known: Record<string, string[]>, ended: AbortSignal): Promise<void> {
  const task = known['task']![0];
  const ingest = 'mutation ($task: String!, $inputs: [TextInput!]!) { ingest(task: $task, inputs: $inputs) { accepted } }';
  const apply = 'mutation ($definition: String!) { applyTask(definition: $definition) { revision } }';
  for (let i = 0; !ended.aborted; i++) {
    await request(ingest, { task, inputs: [{ text: `第${i}条` }] });
    if (i % 20 === 0) {
      const definition = `${known['definition']![0]}`.replace(/^maxLength:.*$/mu, '');
      await request(apply, { definition: `${definition}\nmaxLength: ${32 + ((i / 20) % 64)}\n` });
    }
    await sleep(50);
  }
}

/** Whether the key can have all the subscriptions that are its limit: none of those before is kept. */
async function allAreFree({ url, key }: Subject): Promise<void> {
  const patience = Date.now() + 20_000;
  for (let refused = 1; refused > 0; ) {
    refused = 0;
    const socket = new WebSocket(url.replace('http', 'ws'), PROTOCOL);
    socket.on('message', (data: Buffer) => {
      const text = data.toString();
      if (text.includes('OVERLOADED')) refused += 1;
      if (!text.includes('connection_ack')) return;
      for (let id = 0; id < LIMIT; id++) {
        const payload = { query: 'subscription { modelActivated { version } }' };
        socket.send(JSON.stringify({ id: String(id), type: 'subscribe', payload }));
      }
    });
    socket.once('open', () => socket.send(JSON.stringify({ type: 'connection_init', payload: { authorization: `Bearer ${key}` } })));
    await sleep(1_500);
    socket.close();
    await new Promise((resolve) => socket.once('close', resolve));
    if (refused === 0) return;
    if (Date.now() > patience) {
      failures.push(`${refused} of ${LIMIT} subscriptions are still kept by sockets that are gone`);
      return;
    }
  }
}

/** Of the process: what it has open to others. */
function openSockets(pid: number): number {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).filter((fd) => {
    try {
      return readlinkSync(join(folder, fd)).startsWith('socket:');
    } catch {
      return false; // closed in between
    }
  }).length;
}

const subject = await start();
try {
  const known = await fill(subject);
  await subject.answers();
  const before = openSockets(subject.pid);
  const memory: number[] = [];
  const until = Date.now() + Number(values.seconds) * 1000;
  for (let round = 0; Date.now() < until; round++) {
    const roundEnd = Math.min(until, Date.now() + ROUND_MS);
    const ended = new AbortController();
    const talking = traffic(subject, known, ended.signal);
    const talk = async (stream: number) => {
      const seed = Number(values.seed) * 1_000_000 + round * 100 + stream;
      for (const said of fc.sample(conversation(subject.key, known), { numRuns: 1_000, seed })) {
        if (Date.now() > roundEnd) return;
        await converse(subject.url, said);
      }
    };
    await Promise.all(Array.from({ length: SOCKETS }, (_, stream) => talk(stream)));
    ended.abort();
    await talking;
    await subject.answers();
    await allAreFree(subject);
    memory.push(subject.memoryMib());
  }
  // The database's pool has no more than it had, and keep-alive of what was asked ends within seconds.
  const patience = Date.now() + 60_000;
  while (openSockets(subject.pid) > before && Date.now() < patience) await sleep(1_000);
  const after = openSockets(subject.pid);
  if (after > before) failures.push(`${after} sockets are open, ${before} were`);
  process.stdout.write(`${JSON.stringify(told)}\n${JSON.stringify(outcomes)}\nsockets: ${before} before, ${after} after\n`);
  process.stdout.write(`memory after each round, MiB: ${memory.map((mib) => mib.toFixed(0)).join(' ')}\n`);
  process.stdout.write(`${failures.length} failures\n${failures.slice(0, 20).join('\n')}\n`);
  if (failures.length > 0) process.exitCode = 1;
} finally {
  await subject.stop();
}
