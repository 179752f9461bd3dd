/** Which request a log line is of: the caller's `x-request-id`, or a new one; the answer tells it. */
import type { FastifyInstance } from 'fastify';
import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

const HEADER = 'x-request-id';
/** Anything else may be meant to forge lines of the log. */
const PLAIN = /^[\w.:/+=-]{1,128}$/u;

/** Fastify's `genReqId`; the logger takes it from there. */
export function requestId({ headers }: { headers: IncomingHttpHeaders }): string {
  const given = headers[HEADER];
  return typeof given === 'string' && PLAIN.test(given) ? given : randomUUID();
}

export function tellRequestId(fastify: FastifyInstance): void {
  fastify.addHook('onRequest', (request, reply, done) => {
    void reply.header(HEADER, request.id);
    done();
  });
}
