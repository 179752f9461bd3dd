import { Inject } from '@nestjs/common';
import { Args, Mutation, Query, Resolver, Subscription } from '@nestjs/graphql';
import { filter, map, throttleTime } from 'rxjs';
import { badInput, FewloopError } from '../common/errors.js';
import { LearningEvents } from '../learning/events.js';
import { TaskService } from '../learning/task-service.js';
import { Catalogue } from '../registry/catalogue.js';
import { payloads } from './subscriptions.js';
import { predictionView, versionView } from './views.js';

@Resolver()
export class ModelsResolver {
  constructor(
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(LearningEvents) private readonly events: LearningEvents,
  ) {}

  @Query('modelVersion')
  async modelVersion(@Args('task') task: string, @Args('version') version: number) {
    const row = await this.catalogue.find(task, version);
    return row && versionView(row);
  }

  @Query('replicas')
  replicas() {
    return this.catalogue.replicas();
  }

  @Mutation('startShadow')
  async startShadow(@Args('task') task: string, @Args('version') version: number) {
    if (!(await this.catalogue.find(task, version))) {
      throw new FewloopError('VERSION_NOT_FOUND', `task ${task} has no version ${version}`);
    }
    throw new FewloopError('CONFLICT', 'shadow serving is not in this version');
  }

  @Subscription('modelActivated')
  async modelActivated(@Args('task') task?: string | null) {
    if (typeof task === 'string') await this.tasks.get(task);
    const events = this.events.modelActivated$.pipe(filter((row) => typeof task !== 'string' || row.task === task));
    return payloads('modelActivated', events.pipe(map(versionView)));
  }

  @Subscription('predictions')
  async predictions(@Args('task') task: string, @Args('perSecond') perSecond: number) {
    if (perSecond < 1 || perSecond > 100) throw badInput('perSecond', 'must be 1 to 100');
    await this.tasks.get(task);
    const scored = this.events.predictions$.pipe(filter((event) => event.task === task));
    const sample = scored.pipe(throttleTime(1000 / perSecond));
    return payloads('predictions', sample.pipe(map(({ prediction, id }) => predictionView(prediction, id ?? null))));
  }
}
