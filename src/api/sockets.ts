/**
 * Subscriptions over WebSocket, by the protocol graphql-transport-ws, whose library keeps to it: who asks is said by
 * connection_init, a message that is none ends the connection, an error is an answer as any other.
 */
import { Logger } from '@nestjs/common';
import type { FastifyInstance } from 'fastify';
import type {
  DocumentNode,
  ExecutionArgs,
  ExecutionResult,
  FragmentDefinitionNode,
  GraphQLError,
  GraphQLSchema,
  SelectionSetNode,
} from 'graphql';
import { CloseCode, type Context, handleProtocols, makeServer, type Server, type SubscribePayload } from 'graphql-ws';
import type { IncomingMessage } from 'node:http';
import { createRequire } from 'node:module';
import type { Duplex } from 'node:stream';
import { throwError } from 'rxjs';
import { type WebSocket, WebSocketServer } from 'ws';
import { badInput } from '../common/errors.js';
import { toAnswer } from './errors.js';
import { GRAPHQL_PATH, type Gate } from './gate.js';
import type { AccessContext } from './guard.js';
import { MAX_TOKENS } from './limits.js';
import { checkShape } from './shape.js';
import { payloads } from './subscriptions.js';

/** Mercurius's own copy: it refuses a schema of another, which an import is under the test runner. */
const library = createRequire(import.meta.url)('graphql') as typeof import('graphql');

const MAX_MESSAGE_BYTES = 2 ** 20;
/** For a socket to say who it is. */
const INIT_MS = 10_000;
/** A socket that does not answer one ping until the next is dead. */
const PING_MS = 15_000;
/** Of a close; a character that is cut takes up to two bytes more. */
const MAX_REASON_BYTES = 121;
/** For clients to say goodbye when the process ends. */
const GOODBYE_MS = 2_000;

type Events = AsyncGenerator<ExecutionResult, void, void>;
type Format = (execution: ExecutionResult, context: unknown) => { response: ExecutionResult };

interface Connection {
  socket: WebSocket;
  /** Who it is, once it is said; what is asked in its name sees this as its context. */
  context: SubscriptionContext;
}

interface SubscriptionContext extends AccessContext {
  /** What goes on. The library loses sight of one whose id is taken anew while it ends. */
  open: Set<Events>;
}

const logger = new Logger('sockets');

/** What becomes a socket. Any other upgrade that a client offers, such as HTTP/2's, is left alone: it is a request. */
export function isSubscriber({ url, headers }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() === 'websocket' && url?.split('?', 1)[0] === GRAPHQL_PATH;
}

export function serveSubscriptions(fastify: FastifyInstance, gate: Gate, format: Format): void {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: MAX_MESSAGE_BYTES, handleProtocols });
  const answers = (errors: readonly Error[], { extra }: Context<never, Connection>) =>
    format({ errors: errors as GraphQLError[] }, extra.context).response.errors!;
  const server = makeServer<never, Connection>({
    connectionInitWaitTimeout: INIT_MS,
    onConnect: async ({ extra, connectionParams }) => {
      try {
        extra.context.principal = await gate.authenticate(
          connectionParams?.['authorization'] ?? connectionParams?.['Authorization'],
        );
      } catch (error) {
        const { extensions, message } = asAnswer(error as Error);
        const reason = Buffer.from(`${String(extensions['code'])}: ${message}`).subarray(0, MAX_REASON_BYTES);
        extra.socket.close(CloseCode.Unauthorized, reason.toString());
        return false;
      }
      return true;
    },
    onSubscribe: (context, _id, payload) => {
      try {
        return argumentsOf(fastify.graphql.schema, payload, gate, context.extra.context);
      } catch (error) {
        return [new library.GraphQLError((error as Error).message, { originalError: error as Error })];
      }
    },
    subscribe: begin,
    onNext: ({ extra }, _id, _payload, _args, result) =>
      result.errors ? format(result, extra.context).response : undefined,
    onError: (context, _id, _payload, errors) => answers(errors, context),
  });
  fastify.server.on('upgrade', (request, socket: Duplex, head) => {
    try {
      gate.refuseForeignSocket(request);
    } catch (error) {
      return refuse(socket, error as Error);
    }
    sockets.handleUpgrade(request, socket, head, (connected) => converse(server, connected));
  });
  fastify.addHook('preClose', async () => {
    sockets.close();
    for (const socket of sockets.clients) socket.close(1001, 'Going away');
    setTimeout(() => sockets.clients.forEach((socket) => socket.terminate()), GOODBYE_MS).unref();
  });
}

/** What the document asks, if it may be asked at all. */
function argumentsOf(
  schema: GraphQLSchema,
  { query, operationName, variables }: SubscribePayload,
  gate: Gate,
  context: SubscriptionContext,
): ExecutionArgs {
  gate.checkTrusted(query, context);
  const document: DocumentNode = library.parse(query, { maxTokens: MAX_TOKENS });
  checkShape(document);
  const [error] = library.validate(schema, document, library.specifiedRules, { maxErrors: 1 });
  if (error) throw error;
  const asked = library.getOperationAST(document, operationName);
  if (asked?.operation !== library.OperationTypeNode.SUBSCRIPTION) {
    throw badInput(
      'query',
      'over a socket a subscription is asked for, one that operationName names if there are several',
    );
  }
  if (isConditional(asked, document)) throw badInput('query', 'what a subscription is of cannot be skipped');
  return { schema, document, operationName, variableValues: variables, rootValue: {}, contextValue: context };
}

/** Whether its field may not be there: GraphQL's later drafts forbid that, and the library fails where it is not. */
function isConditional(holder: { selectionSet: SelectionSetNode }, document: DocumentNode): boolean {
  return holder.selectionSet.selections.some((selection) => {
    if (selection.directives?.some(({ name }) => name.value === 'skip' || name.value === 'include')) return true;
    if (selection.kind === library.Kind.FIELD) return false;
    if (selection.kind === library.Kind.INLINE_FRAGMENT) return isConditional(selection, document);
    // Validation has refused fragments within themselves, and those that there are not.
    const named = document.definitions.find(
      (each) => each.kind === library.Kind.FRAGMENT_DEFINITION && each.name.value === selection.name.value,
    ) as FragmentDefinitionNode;
    return isConditional(named, document);
  });
}

/** A subscription that does not begin fails: the library would tell it as an event. */
async function begin(args: ExecutionArgs): Promise<Events> {
  try {
    const begun = await library.subscribe(args);
    if ('errors' in begun) return failing(begun.errors![0]!);
    return tracked(begun as Events, (args.contextValue as SubscriptionContext).open);
  } catch (error) {
    return failing(error as Error);
  }
}

function failing(error: Error): Events {
  return payloads(
    '',
    throwError(() => error),
  ) as Events;
}

function tracked(events: Events, open: Set<Events>): Events {
  const over = () => open.delete(events);
  open.add(events);
  return {
    async next() {
      try {
        const result = await events.next();
        if (result.done) over();
        return result;
      } catch (error) {
        over();
        throw error;
      }
    },
    return(value) {
      over();
      return events.return(value);
    },
    throw(error) {
      over();
      return events.throw(error);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
    async [Symbol.asyncDispose]() {
      await this.return();
    },
  };
}

function converse(server: Server<Connection>, socket: WebSocket): void {
  const context: SubscriptionContext = { open: new Set() };
  const closed = server.opened(
    {
      protocol: socket.protocol,
      // Of one that fails the end is told by itself.
      send: (data) => new Promise((resolve) => socket.send(data, () => resolve())),
      close: (code, reason) => socket.close(code, reason),
      onMessage: (take) =>
        socket.on('message', (data: Buffer) => {
          take(data.toString()).catch((error: unknown) => {
            logger.error({ err: error }, 'a message of a socket is not understood');
            socket.close(CloseCode.InternalServerError, 'Internal server error');
          });
        }),
    },
    { socket, context },
  );
  let alive = true;
  const pings = setInterval(() => {
    if (!alive) return socket.terminate();
    alive = false;
    socket.ping();
  }, PING_MS).unref();
  socket.on('pong', () => (alive = true));
  // What is no frame, or a larger one than is taken: the socket is closed with the code that says so.
  socket.on('error', (error) => logger.debug({ err: error }, 'a socket fails'));
  socket.once('close', (code, reason) => {
    clearInterval(pings);
    void closed(code, reason.toString());
    for (const events of context.open) void events.return();
  });
}

function asAnswer(error: Error): GraphQLError {
  return toAnswer(new library.GraphQLError(error.message, { originalError: error }));
}

/** An answer of HTTP, in place of a socket. */
function refuse(socket: Duplex, error: Error): void {
  const body = JSON.stringify({ data: null, errors: [asAnswer(error)] });
  const head = [
    'HTTP/1.1 403 Forbidden',
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
  ];
  socket.on('error', () => socket.destroy());
  socket.end(`${[...head, 'connection: close'].join('\r\n')}\r\n\r\n${body}`);
}
