import { Args, Mutation, Parent, Query, ResolveField, Resolver } from '@nestjs/graphql';
import { Inject } from '@nestjs/common';
import { FewloopError } from '../common/errors.js';
import { AuditService } from '../learning/audit.js';
import { DriftChecks } from '../learning/drift-checks.js';
import { AgreementService } from '../learning/agreement.js';
import { ExampleService } from '../learning/examples.js';
import { IngestService } from '../learning/ingest.js';
import { PoolService } from '../learning/pool.js';
import { PromotionService } from '../learning/promotion.js';
import { RunService } from '../learning/runs.js';
import { TaskService } from '../learning/task-service.js';
import { VersionAgreement } from '../learning/version-agreement.js';
import { Catalogue } from '../registry/catalogue.js';
import { Caller } from './caller.js';
import { checkPage } from './limits.js';
import { findingView, type TaskParent, taskView, versionView } from './views.js';

@Resolver('Task')
export class TasksResolver {
  constructor(
    @Inject(TaskService) private readonly taskService: TaskService,
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(RunService) private readonly runService: RunService,
    @Inject(PromotionService) private readonly promotionService: PromotionService,
    @Inject(PoolService) private readonly poolService: PoolService,
    @Inject(ExampleService) private readonly exampleService: ExampleService,
    @Inject(IngestService) private readonly ingestService: IngestService,
    @Inject(AuditService) private readonly audit: AuditService,
    @Inject(DriftChecks) private readonly driftChecks: DriftChecks,
    @Inject(VersionAgreement) private readonly versionAgreement: VersionAgreement,
    @Inject(AgreementService) private readonly agreementService: AgreementService,
  ) {}

  @Query('tasks')
  async tasks() {
    return (await this.taskService.list()).map(taskView);
  }

  /** Null where there is none: to ask is no error. */
  @Query('task')
  async task(@Args('name') name: string) {
    try {
      return taskView(await this.taskService.get(name));
    } catch (error) {
      if (error instanceof FewloopError && error.code === 'TASK_NOT_FOUND') return null;
      throw error;
    }
  }

  @Mutation('applyTask')
  async applyTask(
    @Args('definition') definition: string,
    @Args('retire') retire: boolean | null,
    @Caller() by: string,
  ) {
    return taskView(await this.taskService.apply(definition, by, { retire: retire ?? false }));
  }

  @ResolveField('activeVersion')
  async activeVersion(@Parent() task: TaskParent) {
    if (task.activeVersion === null) return null;
    const row = await this.catalogue.find(task.name, task.activeVersion);
    return row && versionView(row);
  }

  @ResolveField('findings')
  async findings(@Parent() task: TaskParent) {
    return (await this.taskService.findings(task)).map(findingView);
  }

  @ResolveField('versions')
  async versions(@Parent() task: TaskParent, @Args('first') first: number) {
    return (await this.catalogue.list(task.name, checkPage(first))).map(versionView);
  }

  @ResolveField('runs')
  runs(@Parent() task: TaskParent, @Args('first') first: number) {
    return this.runService.list(task.name, checkPage(first));
  }

  @ResolveField('promotions')
  promotions(@Parent() task: TaskParent, @Args('first') first: number) {
    return this.promotionService.list(task.name, checkPage(first));
  }

  @ResolveField('pool')
  pool(@Parent() task: TaskParent) {
    return this.poolService.stats(task.name);
  }

  @ResolveField('examples')
  examples(@Parent() task: TaskParent) {
    return this.exampleService.stats(task.name);
  }

  @ResolveField('stream')
  stream(@Parent() task: TaskParent) {
    return this.ingestService.stats(task.name);
  }

  @ResolveField('liveAccuracy')
  async liveAccuracy(@Parent() task: TaskParent) {
    const report = await this.audit.liveAccuracy(task.name);
    return report && { ...report, calibration: report.calibrationError === null ? 'INSUFFICIENT' : 'OK' };
  }

  @ResolveField('drift')
  drift(@Parent() task: TaskParent) {
    return this.driftChecks.state(task.name);
  }

  @ResolveField('stopping')
  stopping(@Parent() task: TaskParent) {
    return this.versionAgreement.stopping(task.name);
  }

  @ResolveField('agreement')
  agreement(@Parent() task: TaskParent) {
    return this.agreementService.of(task.name);
  }
}
