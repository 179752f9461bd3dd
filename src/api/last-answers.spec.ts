import Fastify from 'fastify';
import { Agent, request, type IncomingMessage } from 'node:http';
import { expect, it } from 'vitest';
import { endConnections } from './last-answers.js';

it('an answer under way ends its connection, which its client would keep', async () => {
  const fastify = Fastify({ forceCloseConnections: 'idle' });
  endConnections(fastify);
  const asked = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  fastify.get('/', async () => {
    asked.resolve();
    await gate.promise;
    return 'the last one';
  });
  // It has begun to close.
  fastify.addHook('preClose', async () => gate.resolve());
  const url = await fastify.listen({ port: 0, host: '127.0.0.1' });
  const agent = new Agent({ keepAlive: true });
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    request(url, { agent }, (response) => response.resume().once('end', () => resolve(response)))
      .once('error', reject)
      .end();
  });
  await asked.promise;
  const startedMs = performance.now();
  const closed = fastify.close();
  expect((await answered).headers.connection).toBe('close');
  await closed;
  expect(performance.now() - startedMs).toBeLessThan(5000);
  agent.destroy();
}, 20_000);
