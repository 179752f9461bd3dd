/** Tokens of an issuer that the test is: its keys are served over HTTP. */
import {
  exportJWK,
  generateKeyPair,
  type GenerateKeyPairResult,
  type JWK,
  type JWTPayload,
  SignJWT,
  UnsecuredJWT,
} from 'jose';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type OidcSettings, OidcTokens } from './oidc.js';

let server: Server;
let issuer: string;
let pair: GenerateKeyPairResult;
let keys: JWK[];
let asked = 0;
let tokens: OidcTokens;

const settings = (changes: Partial<OidcSettings> = {}): OidcSettings => ({
  oidcIssuer: issuer,
  oidcAudience: 'fewloop',
  oidcJwksUrl: '',
  oidcRoleClaim: 'realm_access.roles',
  oidcTasksClaim: 'tasks',
  requestsPerMinute: 7,
  tokensPerMinute: 0,
  subscriptions: 0,
  ...changes,
});

const publicKey = async ({ publicKey: key }: GenerateKeyPairResult, kid: string) => ({
  ...(await exportJWK(key)),
  kid,
  alg: 'ES256',
});

const sign = (claims: JWTPayload = {}, { key = pair.privateKey, kid = 'one' } = {}) => {
  const now = Math.floor(Date.now() / 1000);
  const all = {
    iss: issuer,
    aud: 'fewloop',
    sub: 'ann',
    exp: now + 60,
    realm_access: { roles: ['offline', 'labeler', 'Engineer'] },
    tasks: ['reviews'],
    ...claims,
  };
  return new SignJWT(JSON.parse(JSON.stringify(all)) as JWTPayload).setProtectedHeader({ alg: 'ES256', kid }).sign(key);
};

beforeAll(async () => {
  pair = await generateKeyPair('ES256');
  server = createServer(({ url }, response) => {
    asked += 1;
    if (url === '/keys') return response.end(JSON.stringify({ keys }));
    if (url === '/.well-known/openid-configuration') {
      return response.end(JSON.stringify({ issuer, jwks_uri: `${issuer}/keys` }));
    }
    return response.writeHead(404).end();
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
beforeEach(async () => {
  keys = [await publicKey(pair, 'one')];
  tokens = new OidcTokens(settings());
});
afterAll(() => new Promise((done) => server.close(done)));

it('a token gives a name, the highest of its roles, its tasks, its end', async () => {
  const principal = await tokens.verify(await sign());
  expect(principal).toMatchObject({ name: 'oidc:ann', role: 'ENGINEER', tasks: ['reviews'] });
  expect(principal.limits.requestsPerMinute).toBe(7);
  expect(principal.expiresAt!.getTime()).toBeGreaterThan(Date.now() + 50_000);
});

it('asks for the keys once', async () => {
  await tokens.verify(await sign());
  const before = asked;
  await tokens.verify(await sign());
  expect(asked).toBe(before);
});

it('a token without the claim of tasks may use none; without such a setting, all', async () => {
  const token = await sign({ tasks: undefined });
  expect((await tokens.verify(token)).tasks).toEqual([]);
  expect((await new OidcTokens(settings({ oidcTasksClaim: '' })).verify(token)).tasks).toBeNull();
});

describe('refuses', () => {
  it.each([
    ['another audience', { aud: 'other' }],
    ['another issuer', { iss: 'https://other.example' }],
    ['one that has ended', { exp: Math.floor(Date.now() / 1000) - 60 }],
    ['one that does not begin yet', { nbf: Math.floor(Date.now() / 1000) + 600 }],
    ['one that never ends', { exp: undefined }],
    ['one of nobody', { sub: undefined }],
  ])('%s', async (_, claims) => {
    await expect(tokens.verify(await sign(claims))).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  it('one without a role', async () => {
    const token = await sign({ realm_access: { roles: ['user'] } });
    await expect(tokens.verify(token)).rejects.toMatchObject({ code: 'FORBIDDEN' });
  });

  it('one that somebody else signed, or nobody, or that the public key signed as a secret', async () => {
    const other = await generateKeyPair('ES256');
    const claims = { iss: issuer, aud: 'fewloop', sub: 'ann', realm_access: { roles: ['ADMIN'] } };
    const secret = new TextEncoder().encode(JSON.stringify(keys[0]));
    const forged = [
      await sign({}, { key: other.privateKey }),
      await sign({}, { key: other.privateKey, kid: 'unknown' }),
      new UnsecuredJWT(claims).setExpirationTime('1m').encode(),
      await new SignJWT(claims).setProtectedHeader({ alg: 'HS256', kid: 'one' }).setExpirationTime('1m').sign(secret),
      'eyJ.x.y',
    ];
    for (const token of forged) await expect(tokens.verify(token)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  it('for now, where the issuer does not answer, and takes it later', async () => {
    const away = new OidcTokens(settings({ oidcJwksUrl: `${issuer}/nowhere` }));
    await expect(away.verify(await sign())).rejects.toMatchObject({ code: 'OVERLOADED', retryAfterMs: 5000 });
  });
});
