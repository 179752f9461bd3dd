import fastify from 'fastify';
import { setImmediate } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { followRequests, idOfRequest, requestId } from './request-id.js';

const asked = (given?: string) => requestId({ headers: { 'x-request-id': given } });

it("takes the caller's", () => {
  expect(asked('order-17/4bf92f35')).toBe('order-17/4bf92f35');
});

it.each([undefined, '', 'two\nlines', '{"level":60}', 'x'.repeat(129)])('makes one in place of %j', (given) => {
  expect(asked(given)).toMatch(/^[0-9a-f-]{36}$/u);
});

it('is known while a request is worked on, and after its body was read', async () => {
  const server = fastify({ genReqId: requestId });
  followRequests(server);
  server.post('/', async () => {
    await setImmediate();
    return idOfRequest();
  });
  const ask = (id: string) =>
    server.inject({ method: 'POST', url: '/', headers: { 'x-request-id': id }, payload: { a: 1 } });
  const answers = await Promise.all(['a', 'b'].map(ask));
  expect(answers.map((answer) => answer.json<unknown>())).toEqual([{ reqId: 'a' }, { reqId: 'b' }]);
  expect(answers.map(({ headers }) => headers['x-request-id'])).toEqual(['a', 'b']);
  expect(idOfRequest()).toEqual({});
  await server.close();
});
