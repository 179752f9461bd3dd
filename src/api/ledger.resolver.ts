import { Inject } from '@nestjs/common';
import { Args, Query, Resolver } from '@nestjs/graphql';
import { LedgerService } from '../learning/ledger.js';
import { TaskService } from '../learning/task-service.js';
import { checkPage } from './limits.js';

@Resolver()
export class LedgerResolver {
  constructor(
    @Inject(LedgerService) private readonly ledgerService: LedgerService,
    @Inject(TaskService) private readonly tasks: TaskService,
  ) {}

  @Query('ledger')
  async ledger(
    @Args('task') task: string,
    @Args('first') first: number,
    @Args('after') after: string | null | undefined,
  ) {
    checkPage(first);
    await this.tasks.get(task);
    return this.ledgerService.listOfTask(task, first, after ?? null);
  }

  @Query('verifyLedger')
  verifyLedger(@Args('hash') hash: string | null) {
    return this.ledgerService.verify(hash);
  }
}
