import { Inject } from '@nestjs/common';
import { Parent, ResolveField, Resolver } from '@nestjs/graphql';
import { TrialService } from '../learning/trials.js';

@Resolver('Trial')
export class TrialsResolver {
  constructor(@Inject(TrialService) private readonly trials: TrialService) {}

  @ResolveField('flips')
  flips(@Parent() { id }: { id: string }) {
    return this.trials.flipsOf(id);
  }
}
