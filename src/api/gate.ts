/**
 * The gate before GraphQL: who asks, by header or by a subscription's connection_init; requests that a web page of
 * somebody else makes in a user's browser; documents that nobody may send.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { type DocumentNode, Kind, visit } from 'graphql';
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { readFileSync } from 'node:fs';
import type { Principal } from '../access/principal.js';
import { badInput, FewloopError } from '../common/errors.js';
import { isLoopback } from '../config/config.js';
import type { Access, AccessContext } from './guard.js';
import { INTROSPECTION } from './shape.js';

export const GRAPHQL_PATH = '/graphql';
/** A browser asks the server first before it sends a page's request with this header. */
const PREFLIGHT_HEADER = 'graphql-require-preflight';
const CONTENT_TYPES = new Set(['application/json', 'application/graphql']);

export class Gate {
  readonly #principals = new WeakMap<FastifyRequest, Principal>();
  readonly #trusted: ReadonlySet<string> | undefined;

  constructor(
    private readonly access: Access,
    trustedDocuments: string,
  ) {
    if (trustedDocuments !== '') this.#trusted = readHashes(trustedDocuments);
  }

  /** Before the body is read: who may not ask costs nothing more. */
  guard(fastify: FastifyInstance): void {
    fastify.addHook('onRequest', async (request) => {
      if (request.routeOptions.url !== GRAPHQL_PATH) return;
      const { authenticator, usage } = this.access;
      refuseForeignPages(request, authenticator.required);
      const principal = await authenticator.authenticate(request.headers.authorization);
      this.#principals.set(request, principal);
      await usage.takeRequest(principal);
    });
  }

  /** A page of somebody else can open a socket, and needs no preflight for it. */
  refuseForeignSocket({ headers }: IncomingMessage): void {
    if (!this.access.authenticator.required) refuseForeignNames(headers.host, headers.origin);
  }

  authenticate(authorization: unknown): Promise<Principal> {
    return this.access.authenticator.authenticate(authorization);
  }

  /** Mercurius's context of a request over HTTP. Without a principal nothing is resolved. */
  readonly context = (request: FastifyRequest): AccessContext => {
    const principal = this.#principals.get(request);
    return principal ? { principal } : {};
  };

  /** Before a document is parsed. */
  checkTrusted(source: string, context: unknown): void {
    if (!this.#trusted || !isClient(context)) return;
    if (this.#trusted.has(createHash('sha256').update(source).digest('hex'))) return;
    throw new FewloopError(
      'FORBIDDEN',
      'this query is not among those that the service trusts (FEWLOOP_TRUSTED_DOCUMENTS)',
    );
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

/**
 * A page can send a form to any address, and open a socket to it; what it cannot send without being asked about first
 * is JSON, or a header of its own. Without access control an address on the loopback is all that protects, so that a
 * page must not reach it by a name of its own either, nor by a socket.
 */
function refuseForeignPages(request: FastifyRequest, required: boolean): void {
  const { headers, method } = request;
  if (!required) refuseForeignNames(request.host, headers.origin);
  if (headers[PREFLIGHT_HEADER] !== undefined) return;
  const type = headers['content-type']?.split(';')[0]?.trim().toLowerCase() ?? '';
  if (CONTENT_TYPES.has(type)) return;
  const header = method === 'GET' ? `the header ${PREFLIGHT_HEADER}` : 'the content type application/json';
  throw badInput('content-type', `the request needs ${header}`);
}

function refuseForeignNames(host: string | undefined, origin: string | undefined): void {
  if (isLoopback(hostOf(`http://${host}`)) && (origin === undefined || isLoopback(hostOf(origin)))) return;
  throw new FewloopError('FORBIDDEN', 'without access control the service answers to loopback names alone');
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
