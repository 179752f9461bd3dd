/** OpenID Connect's bearer tokens, by `jose`: signed by the issuer's keys, for this audience, not expired. */
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify, type JWTVerifyGetKey } from 'jose';
import { FewloopError } from '../common/errors.js';
import type { Config } from '../config/config.js';
import { type Principal, type Role, ROLES, unauthenticated } from './principal.js';

/** None that signs with a shared secret: the public key would be one. */
const ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
];
/** As OpenID Connect has it; it stands in records. */
const SUBJECT = /^[\x20-\x7e]{1,255}$/u;
const CLOCK_TOLERANCE_S = 30;
const TIMEOUT_MS = 5_000;

export type OidcSettings = Pick<
  Config,
  | 'oidcIssuer'
  | 'oidcAudience'
  | 'oidcJwksUrl'
  | 'oidcRoleClaim'
  | 'oidcTasksClaim'
  | 'requestsPerMinute'
  | 'tokensPerMinute'
  | 'subscriptions'
>;

export class OidcTokens {
  #keys: Promise<JWTVerifyGetKey> | undefined;

  constructor(private readonly settings: OidcSettings) {}

  /** Throws UNAUTHENTICATED; FORBIDDEN where the token names no role; OVERLOADED while the issuer's keys cannot be had. */
  async verify(token: string): Promise<Principal> {
    const { oidcIssuer: issuer, oidcAudience: audience } = this.settings;
    const keys = await this.keys();
    const options = {
      issuer,
      audience,
      algorithms: ALGORITHMS,
      clockTolerance: CLOCK_TOLERANCE_S,
      requiredClaims: ['exp', 'sub'],
    };
    try {
      return this.principalOf((await jwtVerify(token, keys, options)).payload);
    } catch (error) {
      if (error instanceof FewloopError) throw error;
      throw refusal(error);
    }
  }

  private principalOf(claims: JWTPayload): Principal {
    const { oidcRoleClaim, oidcTasksClaim, requestsPerMinute, tokensPerMinute, subscriptions } = this.settings;
    const { sub = '' } = claims;
    if (!SUBJECT.test(sub)) throw unauthenticated("the token's sub is not right");
    const role = highest(strings(claimAt(claims, oidcRoleClaim)));
    if (!role) {
      throw new FewloopError('FORBIDDEN', `the token's claim ${oidcRoleClaim} names none of ${ROLES.join(', ')}`);
    }
    return {
      name: `oidc:${sub}`,
      role,
      tasks: oidcTasksClaim === '' ? null : strings(claimAt(claims, oidcTasksClaim)),
      limits: { requestsPerMinute, tokensPerMinute, subscriptions },
      expiresAt: new Date((claims.exp! + CLOCK_TOLERANCE_S) * 1000),
    };
  }

  /** What cannot be found now is looked for again with the next token. */
  private async keys(): Promise<JWTVerifyGetKey> {
    this.#keys ??= this.findKeys();
    try {
      return await this.#keys;
    } catch (error) {
      this.#keys = undefined;
      throw unreachable(error);
    }
  }

  private async findKeys(): Promise<JWTVerifyGetKey> {
    const url = this.settings.oidcJwksUrl || (await discover(this.settings.oidcIssuer));
    // It keeps them, and asks again for a key that it does not know, at most twice a minute.
    return createRemoteJWKSet(new URL(url), { timeoutDuration: TIMEOUT_MS });
  }
}

async function discover(issuer: string): Promise<string> {
  const url = `${issuer.replace(/\/$/u, '')}/.well-known/openid-configuration`;
  const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS), redirect: 'error' });
  if (!response.ok) throw new Error(`${url} answers ${response.status}`);
  const found = (await response.json()) as { issuer?: unknown; jwks_uri?: unknown };
  if (found.issuer !== issuer || typeof found.jwks_uri !== 'string') throw new Error(`${url} is of another issuer`);
  const { protocol } = new URL(found.jwks_uri);
  if (protocol !== new URL(issuer).protocol) throw new Error(`${url} names keys by ${protocol}`);
  return found.jwks_uri;
}

/** What is wrong with a token is the caller's to mend; that the issuer does not answer is not. */
function refusal(error: unknown): FewloopError {
  if (error instanceof errors.JWTExpired) return unauthenticated('the token has expired');
  if (error instanceof errors.JWTClaimValidationFailed)
    return unauthenticated(`the token's ${error.claim} is not right`);
  const isIssuers = error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid;
  if (error instanceof errors.JOSEError && !isIssuers && error.constructor !== errors.JOSEError) {
    return unauthenticated('the token is not valid');
  }
  return unreachable(error);
}

function unreachable(cause: unknown): FewloopError {
  return new FewloopError('OVERLOADED', "the issuer's keys cannot be had now", { retryAfterMs: 5000, cause });
}

function claimAt(claims: JWTPayload, path: string): unknown {
  // A name with dots in it, as of a URL, is taken as it is first.
  if (Object.hasOwn(claims, path)) return claims[path];
  return path.split('.').reduce<unknown>((value, name) => {
    return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
      ? (value as Record<string, unknown>)[name]
      : undefined;
  }, claims);
}

function strings(value: unknown): string[] {
  return (Array.isArray(value) ? value : [value]).filter((each) => typeof each === 'string');
}

function highest(names: string[]): Role | undefined {
  const given = new Set(names.map((name) => name.toUpperCase()));
  return ROLES.findLast((role) => given.has(role));
}
