/**
 * The gate before GraphQL: who asks, by header or by a subscription's connection_init; requests that a web page of
 * somebody else makes in a user's browser; documents that nobody may send.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { type DocumentNode, GraphQLError, type GraphQLSchema, Kind, visit } from 'graphql';
import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import type { IncomingMessage } from 'node:http';
import { readFileSync } from 'node:fs';
import { LOCAL, type Principal } from '../access/principal.js';
import { badInput, FewloopError } from '../common/errors.js';
import { isLoopback } from '../config/config.js';
import { toAnswer, withoutSuggestions } from './errors.js';
import type { Access, AccessContext } from './guard.js';
import { checkShape, INTROSPECTION } from './shape.js';

/** Mercurius's own copy: it refuses a schema of another, which an import is under the test runner. */
const { specifiedRules, validate } = createRequire(import.meta.url)('graphql') as typeof import('graphql');

const PATH = '/graphql';
/** A browser asks the server first before it sends a page's request with this header. */
const PREFLIGHT_HEADER = 'graphql-require-preflight';
const CONTENT_TYPES = new Set(['application/json', 'application/graphql']);
/** For a socket to say who it is. */
const INIT_MS = 10_000;
/** Application codes of graphql-transport-ws. */
const CLOSE_UNAUTHORIZED = 4401;

/** Of the connection, `this` in Mercurius's `onConnect`. */
interface Connection {
  socket: { close(code: number, reason: string): void };
}

export class Gate {
  readonly #principals = new WeakMap<FastifyRequest, Principal>();
  readonly #silent = new WeakMap<IncomingMessage, NodeJS.Timeout>();
  readonly #trusted: ReadonlySet<string> | undefined;

  constructor(
    private readonly access: Access,
    trustedDocuments: string,
  ) {
    if (trustedDocuments !== '') this.#trusted = readHashes(trustedDocuments);
  }

  /** Before the body is read: who may not ask costs nothing more. */
  guard(fastify: FastifyInstance): void {
    fastify.addHook('onRequest', async (request, reply) => {
      if (request.routeOptions.url !== PATH) return;
      const { authenticator, usage } = this.access;
      // The server counts a connection that asked for a socket no longer as its own: refused, it would stay, and hold
      // up the service's end.
      if (isUpgrade(request)) reply.raw.once('finish', () => request.raw.socket.destroySoon());
      refuseForeignPages(request, authenticator.required);
      if (isUpgrade(request)) return this.awaitInit(request);
      const principal = await authenticator.authenticate(request.headers.authorization);
      this.#principals.set(request, principal);
      await usage.takeRequest(principal);
    });
  }

  /** Mercurius's context of a request over HTTP. Without a principal nothing is resolved. */
  readonly context = (request: FastifyRequest): AccessContext => {
    const principal = this.#principals.get(request);
    return principal ? { principal } : {};
  };

  /** Mercurius's `subscription` options. */
  get subscription(): object {
    const { authenticator } = this.access;
    const heard = (request: FastifyRequest) => clearTimeout(this.#silent.get(request.raw));
    return {
      fullWsTransport: false,
      context: (_socket: unknown, request: FastifyRequest) => {
        heard(request);
        return authenticator.required ? {} : { principal: LOCAL };
      },
      async onConnect(this: Connection, { payload }: { payload?: Record<string, unknown> | null }) {
        try {
          return {
            principal: await authenticator.authenticate(payload?.['authorization'] ?? payload?.['Authorization']),
          };
        } catch (error) {
          const { extensions, message } = toAnswer(new GraphQLError('', { originalError: error as Error }));
          this.socket.close(CLOSE_UNAUTHORIZED, `${String(extensions['code'])}: ${message}`.slice(0, 120));
          return false;
        }
      },
    };
  }

  /** Mercurius's hook before parsing, of subscriptions too. */
  checkTrusted(source: string, context: unknown): void {
    if (!this.#trusted || !isClient(context)) return;
    if (this.#trusted.has(createHash('sha256').update(source).digest('hex'))) return;
    throw new FewloopError(
      'FORBIDDEN',
      'this query is not among those that the service trusts (FEWLOOP_TRUSTED_DOCUMENTS)',
    );
  }

  /** Mercurius's hook before a subscription, which it neither validates nor bounds itself. */
  checkSubscription(schema: GraphQLSchema, document: DocumentNode): void {
    // Parsed already, it would be anything: what was parsed here has a location of the library's class.
    if (!document.loc || Object.getPrototypeOf(document.loc) === Object.prototype) {
      throw asAnswer(badInput('query', 'must be a string'));
    }
    checkShape(document);
    const [error] = validate(schema, document, specifiedRules, { maxErrors: 1 });
    if (error) throw withoutSuggestions(toAnswer(error));
  }

  private awaitInit({ raw }: FastifyRequest): void {
    this.#silent.set(raw, setTimeout(() => raw.socket.destroy(), INIT_MS).unref());
  }
}

/** Whether hints of the schema are kept from whoever asks. */
export function isClient(context: unknown): boolean {
  const { principal } = (context ?? {}) as AccessContext;
  return principal === undefined || principal.role === 'CLIENT';
}

const introspecting = new WeakMap<DocumentNode, boolean>();

/** Mercurius's hook before execution. */
export function refuseIntrospection(document: DocumentNode, context: unknown): void {
  if (!isClient(context)) return;
  let found = introspecting.get(document);
  if (found === undefined) {
    found = false;
    visit(document, {
      [Kind.FIELD]: ({ name }) => {
        if (INTROSPECTION.has(name.value)) found = true;
      },
    });
    introspecting.set(document, found);
  }
  if (found) throw new FewloopError('FORBIDDEN', 'the schema is not shown to the role CLIENT');
}

export function asAnswer(error: Error): GraphQLError {
  return toAnswer(new GraphQLError(error.message, { originalError: error }));
}

function isUpgrade({ method, headers }: FastifyRequest): boolean {
  return method === 'GET' && headers.upgrade?.toLowerCase() === 'websocket';
}

/**
 * A page can send a form to any address, and open a socket to it; what it cannot send without being asked about first
 * is JSON, or a header of its own. Without access control an address on the loopback is all that protects, so that a
 * page must not reach it by a name of its own either, nor by a socket.
 */
function refuseForeignPages(request: FastifyRequest, required: boolean): void {
  const { headers, method } = request;
  if (!required) {
    const origin = headers.origin === undefined ? undefined : hostOf(headers.origin);
    if (!isLoopback(request.hostname) || (origin !== undefined && !isLoopback(origin))) {
      throw new FewloopError('FORBIDDEN', 'without access control the service answers to loopback names alone');
    }
  }
  if (isUpgrade(request) || headers[PREFLIGHT_HEADER] !== undefined) return;
  const type = headers['content-type']?.split(';')[0]?.trim().toLowerCase() ?? '';
  if (CONTENT_TYPES.has(type)) return;
  const header = method === 'GET' ? `the header ${PREFLIGHT_HEADER}` : 'the content type application/json';
  throw badInput('content-type', `the request needs ${header}`);
}

/** Empty where it is no URL: a page that may not say where it is from. */
function hostOf(origin: string): string {
  return URL.canParse(origin) ? new URL(origin).hostname : '';
}

function readHashes(file: string): ReadonlySet<string> {
  const wrong = new Error(`FEWLOOP_TRUSTED_DOCUMENTS=${file}: must be a JSON array of SHA-256 in hex`);
  let hashes: unknown;
  try {
    hashes = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    throw wrong;
  }
  const isHash = (hash: unknown) => typeof hash === 'string' && /^[0-9a-f]{64}$/u.test(hash);
  if (!Array.isArray(hashes) || !hashes.every(isHash)) throw wrong;
  return new Set(hashes as string[]);
}
