/** `fewloop import` of a file that is larger than the memory that it may take, into what answers as the service does. */
import { once } from 'node:events';
import { createWriteStream, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { written } from '../../src/cli/formats/formats.js';
import { startCli } from '../fixtures/cli.js';

const ROWS = 24_000;
const HEAP_MB = 32;
/** In UTF-8; in memory its characters take two bytes in place of three. */
const FILE_MB = 2 * HEAP_MB;
const TEXT = '房间干净，服务热情，早餐种类多。'.repeat(60);

let folder: string;
let server: Server;
let texts: Set<string>;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fewloop-long-'));
  server = createServer((request, response) => {
    void answer(request).then((body) => response.setHeader('content-type', 'application/json').end(body));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
});

afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

async function answer(request: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part);
  const { variables } = JSON.parse(Buffer.concat(parts).toString()) as { variables: { rows: { text: string }[] } };
  for (const { text } of variables.rows) texts.add(text.slice(0, text.indexOf('：')));
  const result = { added: variables.rows.length, updated: 0, unchanged: 0, rejected: [] };
  return JSON.stringify({ data: { result } });
}

async function* rows() {
  for (let i = 0; i < ROWS; i++) yield { text: `${i}：${TEXT}`, labels: [i % 3 === 0 ? 'negative' : 'positive'] };
}

it.each(['jsonl', 'csv', 'label-studio'] as const)('%s', async (format) => {
  texts = new Set();
  const file = join(folder, `rows.${format}`);
  await pipeline(Readable.from(written(format, rows(), ['positive', 'negative'])), createWriteStream(file));
  expect(statSync(file).size).toBeGreaterThan(FILE_MB * 1e6);
  const { port } = server.address() as AddressInfo;
  const more = { NODE_OPTIONS: `--max-old-space-size=${HEAP_MB}`, XDG_STATE_HOME: folder };
  const args = ['--json', 'import', 'long', file, '--format', format];
  const { code, out } = await startCli(`http://127.0.0.1:${port}`, args, '', more).done;
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ added: ROWS });
  expect(texts.size).toBe(ROWS);
  rmSync(file);
});
