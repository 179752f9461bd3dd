/** Which request a log line is of: the caller's `x-request-id`, or a new one; the answer tells it. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

const HEADER = 'x-request-id';
/** Anything else may be meant to forge lines of the log. */
const PLAIN = /^[\w.:/+=-]{1,128}$/u;

const current = new AsyncLocalStorage<string>();

/** Fastify's `genReqId`. */
export function requestId({ headers }: { headers: IncomingHttpHeaders }): string {
  const given = headers[HEADER];
  return typeof given === 'string' && PLAIN.test(given) ? given : randomUUID();
}

/** For a line of the log. */
export function idOfRequest(): { reqId?: string } {
  const reqId = current.getStore();
  return reqId === undefined ? {} : { reqId };
}

export function followRequests(fastify: FastifyInstance): void {
  const within = ({ id }: FastifyRequest, done: () => void) => current.run(id, done);
  fastify.addHook('onRequest', (request, reply, done) => {
    void reply.header(HEADER, request.id);
    within(request, done);
  });
  // What reads the body does so in a context of its own.
  fastify.addHook('preValidation', (request, _reply, done) => within(request, done));
}
