import { Inject } from '@nestjs/common';
import { Args, Mutation, Query, Resolver } from '@nestjs/graphql';
import { ReviewService } from '../learning/review.js';
import type { QueryStrategyName } from '../learning/query-strategies.js';
import { Caller } from './caller.js';
import { checkPage } from './limits.js';
import { candidateView } from './views.js';

@Resolver()
export class ReviewResolver {
  constructor(@Inject(ReviewService) private readonly review: ReviewService) {}

  @Query('reviewQueue')
  async reviewQueue(
    @Args('task') task: string,
    @Args('first') first: number,
    @Args('after') after?: string | null,
    @Args('strategy') strategy?: QueryStrategyName | null,
  ) {
    const { edges, pageInfo, totalCount } = await this.review.queue(task, { first: checkPage(first), after, strategy });
    return { edges: edges.map(({ cursor, node }) => ({ cursor, node: candidateView(node) })), pageInfo, totalCount };
  }

  @Mutation('label')
  async label(@Args('candidate') candidate: string, @Args('labels') labels: string[], @Caller() by: string) {
    return candidateView(await this.review.label(candidate, labels, by));
  }

  @Mutation('skip')
  async skip(
    @Args('candidate') candidate: string,
    @Args('reason') reason: string | null | undefined,
    @Caller() by: string,
  ) {
    return candidateView(await this.review.skip(candidate, reason ?? null, by));
  }
}
