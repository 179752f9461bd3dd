/** Without access control the loopback address is all that protects: pages of others must not reach it. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { request } from 'node:http';
import { connect } from 'node:net';
import { WebSocket } from 'ws';
import { type Service, startService } from '../fixtures/service.js';

let service: Service;

beforeAll(async () => {
  service = await startService();
});
afterAll(() => service?.close());

/** `fetch` does not let its caller say which host it asks. */
function ask(headers: Record<string, string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request(service.url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers } });
    asked.on('response', (response) => {
      let text = '';
      response.on('data', (data: Buffer) => (text += data.toString()));
      response.on('end', () => resolve(text));
    });
    asked.on('error', reject);
    asked.end(JSON.stringify({ query: '{ tasks { name } }' }));
  });
}

it('answers to loopback names and pages alone', async () => {
  expect(await ask({ host: 'localhost:3000', origin: 'http://localhost:5173' })).toBe('{"data":{"tasks":[]}}');
  expect(await ask({ host: '[::1]:3000' })).toBe('{"data":{"tasks":[]}}');
  for (const headers of [{ host: 'rebound.example' }, { origin: 'https://evil.example' }, { origin: 'null' }]) {
    expect(await ask(headers as unknown as Record<string, string>)).toContain('FORBIDDEN');
  }
});

it('opens no socket for a page of somebody else', async () => {
  const socket = new WebSocket(service.url.replace('http', 'ws'), 'graphql-transport-ws', {
    headers: { origin: 'https://evil.example' },
  });
  const failed = await new Promise<Error>((resolve, reject) => {
    socket.once('error', resolve);
    socket.once('open', () => reject(new Error('it opened')));
  });
  expect(failed.message).toContain('Unexpected server response');
});

it('ends the connection of an upgrade that it refuses', async () => {
  const answer = await new Promise<string>((resolve) => {
    const socket = connect(Number(new URL(service.url).port), '127.0.0.1');
    let text = '';
    socket.on('data', (data: Buffer) => (text += data.toString()));
    socket.once('close', () => resolve(text));
    const lines = ['GET /graphql HTTP/1.1', 'host: rebound.example', 'connection: upgrade', 'upgrade: websocket'];
    socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  });
  expect(answer).toContain('FORBIDDEN');
});
