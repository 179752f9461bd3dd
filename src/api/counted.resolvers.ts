/**
 * `totalCount` of what is paged, counted where a request asks for it alone: it takes longer than a page of many. As
 * field resolvers, because a compiled query does not call a function that is merely a property of what was returned.
 */
import { Parent, ResolveField, Resolver } from '@nestjs/graphql';

interface Counted {
  count: () => Promise<number>;
}

class CountedResolver {
  @ResolveField('totalCount')
  totalCount(@Parent() { count }: Counted) {
    return count();
  }
}

@Resolver('CandidateConnection')
export class CandidateConnectionResolver extends CountedResolver {}

@Resolver('LeasedQuestions')
export class LeasedQuestionsResolver extends CountedResolver {}

@Resolver('ExampleConnection')
export class ExampleConnectionResolver extends CountedResolver {}
