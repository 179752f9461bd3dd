import { Inject } from '@nestjs/common';
import { Args, Mutation, Parent, Query, ResolveField, Resolver, Subscription } from '@nestjs/graphql';
import { defer, filter, map, type Observable, switchMap, throttleTime, throwError } from 'rxjs';
import { badInput, type FewloopError } from '../common/errors.js';
import { LearningEvents } from '../learning/events.js';
import { PromotionService } from '../learning/promotion.js';
import { TaskService } from '../learning/task-service.js';
import { TrialService } from '../learning/trials.js';
import { ActivationService } from '../registry/activation.js';
import { Catalogue } from '../registry/catalogue.js';
import { Caller } from './caller.js';
import { payloads } from './subscriptions.js';
import { predictionView, versionView } from './views.js';

@Resolver('ModelVersion')
export class ModelsResolver {
  constructor(
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(PromotionService) private readonly promotions: PromotionService,
    @Inject(TrialService) private readonly trialService: TrialService,
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(ActivationService) private readonly activation: ActivationService,
    @Inject(LearningEvents) private readonly events: LearningEvents,
  ) {}

  @Query('modelVersion')
  async modelVersion(@Args('task') task: string, @Args('version') version: number) {
    const row = await this.catalogue.find(task, version);
    return row && versionView(row);
  }

  @Query('modelVersionByAlias')
  async modelVersionByAlias(@Args('task') task: string, @Args('alias') alias: string) {
    const row = await this.catalogue.find(task, await this.promotions.aliased(task, alias));
    return row && versionView(row);
  }

  @ResolveField('aliases')
  aliases(@Parent() { task, version, state }: { task: string; version: number; state: string }) {
    return this.promotions.aliasesOf(task, version, state);
  }

  @ResolveField('precision')
  precision(@Parent() { task, version }: { task: string; version: number }) {
    return this.activation.precisionOf(task, version) ?? null;
  }

  @Query('replicas')
  replicas() {
    return this.catalogue.replicas();
  }

  @Mutation('startShadow')
  async startShadow(
    @Args('task') task: string,
    @Args('version') version: number,
    @Args('minutes') minutes: number | null,
    @Caller() by: string,
  ) {
    return versionView(await this.trialService.startShadow(task, version, by, minutes ?? null));
  }

  @Mutation('stopTrial')
  stopTrial(@Args('task') task: string, @Args('reason') reason: string, @Caller() by: string) {
    return this.trialService.stop(task, reason, by);
  }

  @ResolveField('trials')
  trials(@Parent() { task, version }: { task: string; version: number }) {
    return this.trialService.listOf(task, version);
  }

  @Subscription('modelActivated')
  modelActivated(@Args('task') task?: string | null) {
    if (typeof task !== 'string') return payloads('modelActivated', this.events.modelActivated$.pipe(map(versionView)));
    const events = this.events.modelActivated$.pipe(filter((row) => row.task === task));
    return payloads('modelActivated', this.known(task, events.pipe(map(versionView))));
  }

  @Subscription('predictions')
  predictions(@Args('task') task: string, @Args('perSecond') perSecond: number) {
    const scored = this.events.predictions$.pipe(filter((event) => event.task === task));
    const sample = scored.pipe(throttleTime(1000 / perSecond));
    const views = sample.pipe(map(({ prediction, id }) => predictionView(prediction, id ?? null)));
    const asked = perSecond >= 1 && perSecond <= 100 ? this.known(task, views) : throwError(refusedRate);
    return payloads('predictions', asked);
  }

  /** The source, once it is known that there is such a task. */
  private known<T>(task: string, source: Observable<T>): Observable<T> {
    return defer(() => this.tasks.get(task)).pipe(switchMap(() => source));
  }
}

function refusedRate(): FewloopError {
  return badInput('perSecond', 'must be 1 to 100');
}
