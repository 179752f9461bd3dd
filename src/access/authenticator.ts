/** From what a caller sends as its credentials to who it is. */
import { Inject, Injectable } from '@nestjs/common';
import { Config } from '../config/config.js';
import { KeyDirectory } from './key-directory.js';
import { OidcTokens } from './oidc.js';
import { LOCAL, type Principal, unauthenticated } from './principal.js';

const MAX_TOKEN_LENGTH = 16_384;

@Injectable()
export class Authenticator {
  readonly required: boolean;
  readonly #oidc: OidcTokens | undefined;

  constructor(
    @Inject(Config) config: Config,
    @Inject(KeyDirectory) private readonly keys: KeyDirectory,
  ) {
    this.required = config.auth === 'required';
    if (config.oidcIssuer !== '') this.#oidc = new OidcTokens(config);
  }

  /** `authorization`: the header, `Bearer TOKEN`. */
  async authenticate(authorization: unknown): Promise<Principal> {
    if (!this.required) return LOCAL;
    if (typeof authorization !== 'string' || authorization === '') {
      throw unauthenticated('an access key is needed: authorization: Bearer KEY');
    }
    const [, token] = /^Bearer +([^\s,]+)$/iu.exec(authorization) ?? [];
    if (token === undefined || token.length > MAX_TOKEN_LENGTH) {
      throw unauthenticated('authorization must be: Bearer KEY');
    }
    // A JWT has three parts, which begin with a JSON object's `{"`.
    if (this.#oidc && /^eyJ[\w-]*\.[\w-]+\.[\w-]*$/u.test(token)) return this.#oidc.verify(token);
    return this.keys.verify(token);
  }

  isAlive(principal: Principal): boolean {
    return principal === LOCAL || this.keys.isAlive(principal);
  }
}
