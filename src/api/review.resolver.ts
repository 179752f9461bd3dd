import { Inject } from '@nestjs/common';
import { Args, Mutation, Query, Resolver } from '@nestjs/graphql';
import type { QueueRequest } from '../learning/question-queue.js';
import { ReviewService } from '../learning/review.js';
import type { QueryStrategyName } from '../learning/query-strategies.js';
import { Caller } from './caller.js';
import { checkPage } from './limits.js';
import { questionView } from './views.js';

@Resolver()
export class ReviewResolver {
  constructor(@Inject(ReviewService) private readonly review: ReviewService) {}

  @Query('reviewQueue')
  async reviewQueue(
    @Args('task') task: string,
    @Args('first') first: number,
    @Args('after') after: string | null | undefined,
    @Args('strategy') strategy: QueryStrategyName | null | undefined,
    @Args('filter') filter: QueueRequest['filter'],
    @Caller() by: string,
  ) {
    const request = { first: checkPage(first), after, strategy, filter };
    const { edges, pageInfo } = await this.review.queue(task, request, by);
    return {
      edges: edges.map(({ cursor, node }) => ({ cursor, node: questionView(node) })),
      pageInfo,
      count: () => this.review.count(task, request, by),
    };
  }

  @Mutation('leaseQuestions')
  async leaseQuestions(
    @Args('task') task: string,
    @Args('first') first: number,
    @Args('strategy') strategy: QueryStrategyName | null | undefined,
    @Args('filter') filter: QueueRequest['filter'],
    @Caller() by: string,
  ) {
    const request = { first: checkPage(first), strategy, filter };
    const questions = await this.review.lease(task, request, by);
    return { questions: questions.map(questionView), count: () => this.review.count(task, request, by) };
  }

  @Mutation('releaseQuestions')
  async releaseQuestions(@Args('task') task: string, @Caller() by: string) {
    await this.review.release(task, by);
    return true;
  }

  @Mutation('label')
  async label(
    @Args('candidate') candidate: string,
    @Args('labels') labels: string[],
    @Args('strategy') strategy: QueryStrategyName | null | undefined,
    @Caller() by: string,
  ) {
    return questionView(await this.review.label(candidate, labels, by, strategy));
  }

  @Mutation('skip')
  async skip(
    @Args('candidate') candidate: string,
    @Args('reason') reason: string | null | undefined,
    @Args('strategy') strategy: QueryStrategyName | null | undefined,
    @Caller() by: string,
  ) {
    return questionView(await this.review.skip(candidate, reason ?? null, by, strategy));
  }

  @Mutation('undoAnswer')
  async undoAnswer(@Args('task') task: string, @Caller() by: string) {
    return questionView(await this.review.undo(task, by));
  }
}
