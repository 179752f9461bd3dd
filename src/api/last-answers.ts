/** What clients see of a process that ends. */
import type { FastifyInstance } from 'fastify';

/**
 * Answers that are still under way when the server closes end their connection: one that is kept alive would hold up the
 * process's end for as long as it is kept, a minute and more.
 */
export function endConnections(fastify: FastifyInstance): void {
  let closing = false;
  fastify.addHook('preClose', async () => {
    closing = true;
  });
  fastify.addHook('onSend', async (_request, reply) => {
    if (closing) reply.header('connection', 'close');
  });
}
