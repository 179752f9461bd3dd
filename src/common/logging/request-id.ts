/** Which request a log line is of: the caller's `x-request-id`, or a new one; the answer tells it. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

const HEADER = 'x-request-id';
/** Anything else may be meant to forge lines of the log. */
const PLAIN = /^[\w.:/+=-]{1,128}$/u;

export function requestId(request: IncomingMessage, response: ServerResponse): string {
  const given = request.headers[HEADER];
  const id = typeof given === 'string' && PLAIN.test(given) ? given : randomUUID();
  response.setHeader(HEADER, id);
  return id;
}
