import { Inject } from '@nestjs/common';
import { Args, Mutation, Query, Resolver } from '@nestjs/graphql';
import { DEAD_LETTERS, type DeadLetters } from '../learning/stream-ports.js';
import { TaskService } from '../learning/task-service.js';
import type { TaskDefinition } from '../task/types.js';
import { checkPage } from './limits.js';

@Resolver()
export class DeadLettersResolver {
  constructor(
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(DEAD_LETTERS) private readonly letters: DeadLetters,
  ) {}

  @Query('deadLetters')
  async list(@Args('task') task: string, @Args('first') first: number) {
    const { letters, total } = await this.letters.list(await this.definitionOf(task), checkPage(first));
    return { nodes: letters, totalCount: total };
  }

  @Mutation('replayDeadLetters')
  async replay(@Args('task') task: string, @Args('first') first: number) {
    return this.letters.replay(await this.definitionOf(task), checkPage(first));
  }

  @Mutation('dropDeadLetters')
  async drop(@Args('task') task: string, @Args('first') first: number) {
    return this.letters.drop(await this.definitionOf(task), checkPage(first));
  }

  private async definitionOf(task: string): Promise<TaskDefinition> {
    return (await this.tasks.get(task)).definition as TaskDefinition;
  }
}
