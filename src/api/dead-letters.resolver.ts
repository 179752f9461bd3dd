import { Inject } from '@nestjs/common';
import { Args, Mutation, Query, Resolver } from '@nestjs/graphql';
import { mayUse, type Principal } from '../access/principal.js';
import { FewloopError } from '../common/errors.js';
import { DEAD_LETTERS, type DeadLetters } from '../learning/stream-ports.js';
import { TaskService } from '../learning/task-service.js';
import type { TaskDefinition } from '../task/types.js';
import { Asking } from './caller.js';
import { checkPage } from './limits.js';

@Resolver()
export class DeadLettersResolver {
  constructor(
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(DEAD_LETTERS) private readonly letters: DeadLetters,
  ) {}

  @Query('deadLetters')
  async list(@Asking() asking: Principal, @Args('task') task: string, @Args('first') first: number) {
    const { letters, total } = await this.letters.list(await this.definitionFor(asking, task), checkPage(first));
    return { nodes: letters, totalCount: total };
  }

  @Mutation('replayDeadLetters')
  async replay(@Asking() asking: Principal, @Args('task') task: string, @Args('first') first: number) {
    return this.letters.replay(await this.definitionFor(asking, task), checkPage(first));
  }

  @Mutation('dropDeadLetters')
  async drop(@Asking() asking: Principal, @Args('task') task: string, @Args('first') first: number) {
    return this.letters.drop(await this.definitionFor(asking, task), checkPage(first));
  }

  /** Throws FORBIDDEN where the letters are those of a task too that `asking` may not use. */
  private async definitionFor(asking: Principal, task: string): Promise<TaskDefinition> {
    const definition = (await this.tasks.get(task)).definition as TaskDefinition;
    if (asking.tasks === null || !this.letters.byInput) return definition;
    const { input } = definition.stream;
    const sharing = (await this.tasks.list()).filter(
      (row) => (row.definition as TaskDefinition).stream.input === input,
    );
    if (sharing.every(({ name }) => mayUse(asking, name))) return definition;
    const mend = `ask with a key for all tasks, or give ${task} a topic of its own (stream.input)`;
    throw new FewloopError('FORBIDDEN', `the dead letters of ${input} are not of ${task} alone: ${mend}`);
  }
}
