/**
 * What GraphQL was asked and how it answered. The document, once it is valid, names the operation; the errors of the
 * answer are those that the caller sees; the request is counted when its answer has left, or can no longer be sent.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { type DocumentNode, type ExecutionResult, Kind } from 'graphql';
import type { Metrics } from '../common/metrics/metrics.js';

interface Seen {
  operation: string;
  codes: string[];
}

/** Mercurius's context, of a request over HTTP; a subscription's has no reply. */
interface Context {
  reply?: { request?: FastifyRequest };
}

const seen = new WeakMap<FastifyRequest, Seen>();

export function noteOperation(document: DocumentNode, context: unknown): void {
  const request = (context as Context | undefined)?.reply?.request;
  if (request) seenOf(request).operation = operationOf(document);
}

/** `errors`: as the caller gets them. */
export function noteErrors(metrics: Metrics, errors: ExecutionResult['errors'], context: unknown): void {
  const codes = (errors ?? []).map(({ extensions }) => String(extensions['code']));
  for (const code of codes) metrics.add('fewloop_errors_total', { code });
  const request = (context as Context | undefined)?.reply?.request;
  if (request) seenOf(request).codes.push(...codes);
}

export function measureRequests(fastify: FastifyInstance, metrics: Metrics): void {
  // For what is sent to a connection that is closed there is no `onResponse`.
  fastify.addHook('onSend', (request: FastifyRequest, _reply: FastifyReply, payload: unknown, done) => {
    if (request.routeOptions.url === '/graphql' && request.socket.destroyed) {
      metrics.add('fewloop_requests_total', { operation: seenOf(request).operation, code: 'CANCELLED' });
    }
    done(null, payload);
  });
  fastify.addHook('onResponse', (request: FastifyRequest, reply: FastifyReply, done) => {
    if (request.routeOptions.url === '/graphql') {
      const { operation, codes } = seenOf(request);
      metrics.add('fewloop_requests_total', {
        operation,
        code: codes[0] ?? (reply.statusCode < 400 ? 'OK' : 'BAD_INPUT'),
      });
      metrics.observe('fewloop_request_seconds', { operation }, reply.elapsedTime / 1000);
    }
    done();
  });
}

function seenOf(request: FastifyRequest): Seen {
  const known = seen.get(request) ?? { operation: 'none', codes: [] };
  seen.set(request, known);
  return known;
}

/** The root field: its name is the schema's, an operation's own name is the caller's. */
function operationOf(document: DocumentNode): string {
  const fields = document.definitions.flatMap((definition) =>
    definition.kind === Kind.OPERATION_DEFINITION ? definition.selectionSet.selections : [],
  );
  const [first] = fields;
  return fields.length === 1 && first?.kind === Kind.FIELD ? first.name.value : 'several';
}
