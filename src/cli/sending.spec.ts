import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, test, vi } from 'vitest';
import type { Client } from './client.js';
import type { Source } from './formats/sources.js';
import { send, type Sent } from './sending.js';

const ROWS = 1_200;
let dir: string;

beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'sending-'));
  vi.stubEnv('XDG_STATE_HOME', dir);
  writeFileSync(path.join(dir, 'rows.jsonl'), 'x');
});

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(dir, { recursive: true });
});

/** Takes so many requests, then fails. */
function service(url: string, requests: number): { client: Client; taken: number[] } {
  const taken: number[] = [];
  const request = (_: string, { rows }: { rows: { n: number }[] }) => {
    if (taken.length / 500 >= requests) return Promise.reject(new Error('away'));
    taken.push(...rows.map(({ n }) => n));
    return Promise.resolve({ result: { imported: rows.length, rejected: [] } });
  };
  return { client: { url, request } as unknown as Client, taken };
}

function sending(client: Client): Promise<Sent> {
  const source = { path: path.join(dir, 'rows.jsonl'), size: 1 } as Source;
  async function* read() {
    for (let n = 0; n < ROWS; n++) yield { line: n + 1, value: { n } };
  }
  const how = { mutation: 'm', names: ['imported'], how: null, restart: false, rejects: undefined };
  return send({ client, task: 'notes', source, read, ...how });
}

test('an interrupted file goes on where it was, to the same service alone', async () => {
  const staging = service('https://staging/graphql', 1);
  await expect(sending(staging.client)).rejects.toThrow('away');
  const production = service('https://production/graphql', 9);
  const sent = await sending(production.client);
  expect(sent).toMatchObject({ resumedAfter: 0, counts: { imported: ROWS } });
  expect(production.taken).toHaveLength(ROWS);
  const again = service('https://staging/graphql', 9);
  expect(await sending(again.client)).toMatchObject({ resumedAfter: 500, counts: { imported: ROWS } });
  expect(again.taken).toHaveLength(ROWS - 500);
});

describe('where how far it got cannot be kept', () => {
  const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  beforeEach(() => void said.mockClear());
  afterAll(() => said.mockRestore());
  const complaints = () => said.mock.calls.map(([text]) => String(text)).filter((text) => text.includes('is not kept'));

  it('says so before anything is sent, and sends all', async () => {
    vi.stubEnv('XDG_STATE_HOME', path.join(dir, 'rows.jsonl'));
    const staging = service('https://staging/graphql', 0);
    await expect(sending(staging.client)).rejects.toThrow('away');
    expect(complaints()).toHaveLength(1);
    const again = service('https://staging/graphql', 9);
    expect(await sending(again.client)).toMatchObject({ resumedAfter: 0, counts: { imported: ROWS } });
    expect(again.taken).toHaveLength(ROWS);
  });

  it('goes on where that is so from the middle on', async () => {
    const { client, taken } = service('https://staging/graphql', 9);
    const state = path.join(dir, 'fewloop');
    const request = async (query: string, variables: object) => {
      rmSync(state, { recursive: true, force: true });
      writeFileSync(state, '');
      return client.request(query, variables);
    };
    const { counts } = await sending({ url: client.url, request } as unknown as Client);
    expect([counts['imported'], taken.length, complaints().length]).toEqual([ROWS, ROWS, 1]);
  });
});

test('a state folder that is named by nothing is the usual one', async () => {
  vi.stubEnv('XDG_STATE_HOME', '');
  vi.stubEnv('HOME', dir);
  await expect(sending(service('https://staging/graphql', 1).client)).rejects.toThrow('away');
  expect(existsSync(path.join(dir, '.local/state/fewloop/sending'))).toBe(true);
});

test.each([
  ['', 'ended after 500 entries: the same command goes on there\n'],
  ['rows.jsonl', 'ended after 500 entries: the same command begins anew\n'],
])('a signal ends it with a word on what the same command does (state in "%s")', async (state, word) => {
  vi.stubEnv('XDG_STATE_HOME', path.join(dir, state));
  const before = process.listenerCount('SIGINT');
  const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  const kill = vi.spyOn(process, 'kill').mockReturnValue(true);
  const { client } = service('https://staging/graphql', 9);
  let asked = 0;
  const request = async (query: string, variables: object) => {
    if (++asked === 2) process.emit('SIGINT', 'SIGINT');
    return client.request(query, variables);
  };
  await sending({ url: client.url, request } as unknown as Client);
  expect(said.mock.calls.at(-1)).toEqual([word]);
  expect(kill.mock.calls).toEqual([[process.pid, 'SIGINT']]);
  expect(process.listenerCount('SIGINT')).toBe(before);
  for (const spy of [said, kill]) spy.mockRestore();
});
