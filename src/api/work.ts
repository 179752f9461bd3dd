/** What a request asks of the models, held against its own bound and its principal's budget. */
import { Inject, Injectable } from '@nestjs/common';
import type { Principal } from '../access/principal.js';
import { Usage } from '../access/usage.js';
import { FewloopError } from '../common/errors.js';
import { Config } from '../config/config.js';

export interface WorkContext {
  principal: Principal;
  /** Tokens that the request has asked for so far, under all its root fields. */
  tokens?: number;
}

@Injectable()
export class Work {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(Usage) private readonly usage: Usage,
  ) {}

  /** Before the work is done. Throws QUERY_TOO_COMPLEX, and OVERLOADED with `retryAfterMs`. */
  async charge(context: WorkContext, tokens: number): Promise<void> {
    const sum = (context.tokens ?? 0) + tokens;
    context.tokens = sum;
    const most = this.config.maxRequestTokens;
    if (sum > most) {
      throw new FewloopError('QUERY_TOO_COMPLEX', `the request takes ${sum} tokens; at most ${most} are taken at once`);
    }
    await this.usage.takeTokens(context.principal, tokens);
  }
}
