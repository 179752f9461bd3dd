import { Inject } from '@nestjs/common';
import { Args, Mutation, Parent, Query, ResolveField, Resolver, Subscription } from '@nestjs/graphql';
import { isDeepStrictEqual } from 'node:util';
import { catchError, distinctUntilChanged, EMPTY, exhaustMap, filter, from, interval, merge, takeWhile } from 'rxjs';
import { badInput, FewloopError } from '../common/errors.js';
import { LearningEvents } from '../learning/events.js';
import { ReproductionService } from '../learning/reproduction.js';
import { RunService } from '../learning/runs.js';
import { Catalogue } from '../registry/catalogue.js';
import { Caller } from './caller.js';
import { checkPage } from './limits.js';
import { payloads } from './subscriptions.js';
import { versionView } from './views.js';

interface RunParent {
  id: string;
  task: string;
  state: string;
  producedVersion: number | null;
}

/** For a change that nobody told of. */
const POLL_MS = 5_000;

@Resolver('TrainingRun')
export class RunsResolver {
  constructor(
    @Inject(RunService) private readonly runs: RunService,
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(ReproductionService) private readonly reproductions: ReproductionService,
    @Inject(LearningEvents) private readonly events: LearningEvents,
  ) {}

  @Query('trainingRun')
  async trainingRun(@Args('id') id: string) {
    try {
      return await this.runs.get(id);
    } catch (error) {
      if (error instanceof FewloopError && error.code === 'RUN_NOT_FOUND') return null;
      throw error;
    }
  }

  @Mutation('startRetrain')
  startRetrain(@Args('task') task: string, @Caller() by: string) {
    return this.runs.start(task, 'MANUAL', by);
  }

  @Mutation('reproduceRun')
  reproduceRun(@Args('id') id: string, @Caller() by: string) {
    return this.runs.reproduce(id, by);
  }

  @Mutation('cancelRun')
  cancelRun(@Args('id') id: string) {
    return this.runs.cancel(id);
  }

  /** The run as it is, then each change, until it is over. */
  @Subscription('trainingRunProgress')
  async trainingRunProgress(@Args('id') id: string) {
    const changes = this.events.runChanged$.pipe(filter((run) => run.id === id));
    const current = from(this.runs.get(id));
    // While the database is away nothing is known, and the run goes on.
    const asked = interval(POLL_MS).pipe(exhaustMap(() => from(this.runs.get(id)).pipe(catchError(() => EMPTY))));
    const open = (run: RunParent) => run.state === 'QUEUED' || run.state === 'RUNNING';
    const seen = merge(changes, current, asked).pipe(
      distinctUntilChanged((before, now) => isDeepStrictEqual(before, now)),
    );
    return payloads('trainingRunProgress', seen.pipe(takeWhile(open, true)));
  }

  @ResolveField('explanation')
  async explanation(@Parent() { id }: RunParent) {
    return this.reproductions.explain(await this.runs.get(id));
  }

  @ResolveField('pseudoLabels')
  async pseudoLabels(@Parent() { id }: RunParent, @Args('first') first: number, @Args('after') after: number) {
    if (after < 0) throw badInput('after', 'must be 0 or more');
    return this.reproductions.pseudoLabels(await this.runs.get(id), checkPage(first), after);
  }

  @ResolveField('produced')
  async produced(@Parent() { task, producedVersion }: RunParent) {
    const row = producedVersion === null ? null : await this.catalogue.find(task, producedVersion);
    return row && versionView(row);
  }
}
