/**
 * Failures as GraphQL answers, mapped here and nowhere else: a FewloopError keeps its code; what the caller wrote wrong
 * in the request itself is BAD_INPUT; while the database is away, what needs it is OVERLOADED: ask again soon; all else
 * is a defect, told as INTERNAL with an id for the log and no detail.
 */
import { type ArgumentsHost, Catch, type ExceptionFilter, Logger } from '@nestjs/common';
import { type ExecutionResult, GraphQLError } from 'graphql';
import { randomUUID } from 'node:crypto';
import { FewloopError } from '../common/errors.js';

const logger = new Logger('api');
/** GraphQL quotes the value that it refuses, however long. */
const MAX_MESSAGE = 500;
/** PostgreSQL's character_not_in_repertoire and untranslatable_character. */
const UNSTORABLE = new Set<unknown>(['22021', '22P05']);
/** PostgreSQL ends, starts, or has no connection left; nobody listens where it was. */
const DATABASE_AWAY = /^(08\w{3}|53300|57P0\d|ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT)$/u;
/** What its client says of a connection that is lost has no code. */
const CONNECTION_LOST = /^(Connection terminated|Client has encountered a connection error|Client was closed)/u;
/** An embedded one is started again within. */
const DATABASE_RETRY_MS = 1000;

/** Without it Nest logs each failure that a caller can act on as an error of the service. */
@Catch(FewloopError)
export class ExpectedErrors implements ExceptionFilter {
  catch(error: FewloopError, _host: ArgumentsHost): FewloopError {
    return error;
  }
}

/** Mercurius's hook. */
export function formatErrors(execution: ExecutionResult): { statusCode: number; response: ExecutionResult } {
  const errors = (execution.errors ?? []).flatMap(unfold).map(toAnswer);
  // For proxies and clients that renew their token then; all else is told in the answer alone.
  const statusCode = errors[0]?.extensions['code'] === 'UNAUTHENTICATED' ? 401 : 200;
  return { statusCode, response: { data: execution.data ?? null, errors } };
}

/** GraphQL's own hints of what the schema has. */
export function withoutSuggestions(error: GraphQLError): GraphQLError {
  const { nodes, source, positions, path, extensions } = error;
  const message = error.message.replace(/ Did you mean .*$/su, '');
  return new GraphQLError(message, { nodes, source, positions, path, extensions });
}

/** Mercurius wraps the errors of validation in one. */
function unfold(error: GraphQLError): readonly GraphQLError[] {
  const inner = (error.originalError as { errors?: readonly unknown[] } | undefined)?.errors;
  if (!Array.isArray(inner)) return [error];
  return inner.map((each: GraphQLError | Error) =>
    isGraphqlError(each) ? each : new GraphQLError(each.message, { extensions: { code: 'BAD_INPUT', field: 'body' } }),
  );
}

export function toAnswer(error: GraphQLError): GraphQLError {
  const { code, message, ...details } = explain(error);
  return new GraphQLError(message, {
    nodes: error.nodes,
    source: error.source,
    positions: error.positions,
    path: error.path,
    extensions: { code, ...details },
  });
}

interface Answer {
  code: string;
  message: string;
  field?: string;
  retryAfterMs?: number;
  logId?: string;
}

function explain(error: GraphQLError): Answer {
  const cause = rootOf(error);
  if (cause instanceof FewloopError && cause.code !== 'INTERNAL') {
    const { code, message, field, retryAfterMs } = cause;
    return {
      code,
      message,
      ...(field !== undefined && { field }),
      ...(retryAfterMs !== undefined && { retryAfterMs }),
    };
  }
  const message = error.message.length > MAX_MESSAGE ? `${error.message.slice(0, MAX_MESSAGE)}…` : error.message;
  if (typeof error.extensions?.code === 'string') {
    return { code: error.extensions.code, message, field: error.extensions.field as string | undefined };
  }
  // A string that PostgreSQL cannot hold, in a place that no service checks: a name that is looked up.
  if (UNSTORABLE.has((cause as { code?: unknown } | undefined)?.code)) {
    return {
      code: 'BAD_INPUT',
      message: 'a string holds the character U+0000',
      field: error.path?.join('.') ?? 'query',
    };
  }
  if (isDatabaseAway(cause)) {
    logger.warn({ err: cause, path: error.path?.join('.') }, 'the database does not answer');
    return {
      code: 'OVERLOADED',
      message: 'the database does not answer; ask again soon',
      retryAfterMs: DATABASE_RETRY_MS,
    };
  }
  const status = (cause as { statusCode?: unknown } | undefined)?.statusCode;
  if (typeof status === 'number' && status >= 400 && status < 500) return { code: 'BAD_INPUT', message, field: 'body' };
  // An error without a place in the answer and without a cause is GraphQL's own about the request.
  if (cause === undefined && error.path === undefined) return { ...refused(message), message };
  const logId = randomUUID();
  logger.error({ logId, err: cause ?? error, path: error.path?.join('.') }, 'request failed');
  return { code: 'INTERNAL', message: `internal error; its log entry is ${logId}`, logId };
}

function isDatabaseAway(cause: unknown): boolean {
  if (!(cause instanceof Error)) return false;
  const { code } = cause as { code?: unknown };
  return typeof code === 'string' ? DATABASE_AWAY.test(code) : CONNECTION_LOST.test(cause.message);
}

/** By its name: the server's copy of the library need not be ours. */
function isGraphqlError(error: unknown): error is GraphQLError {
  return error instanceof Error && error.name === 'GraphQLError';
}

function rootOf(error: GraphQLError): unknown {
  let cause: unknown = error.originalError;
  while (isGraphqlError(cause) && cause.originalError) cause = cause.originalError;
  return isGraphqlError(cause) ? undefined : cause;
}

/** Which part of the request GraphQL refused: `inputs.3.text` of the variables, or the query. */
function refused(message: string): { code: string; field: string } {
  if (/Syntax Error: Document contains more/u.test(message)) return { code: 'QUERY_TOO_COMPLEX', field: 'query' };
  const variable = /^Variable "\$(\w+)"/u.exec(message)?.[1];
  if (variable === undefined) return { code: 'BAD_INPUT', field: 'query' };
  const place = / at "([\w.[\]]+)";/u.exec(message)?.[1] ?? variable;
  return { code: 'BAD_INPUT', field: place.replace(/\[(\d+)\]/gu, '.$1') };
}
