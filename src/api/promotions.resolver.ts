import { Inject } from '@nestjs/common';
import { Args, Mutation, Parent, ResolveField, Resolver } from '@nestjs/graphql';
import { PromotionService } from '../learning/promotion.js';
import { Catalogue } from '../registry/catalogue.js';
import { Caller } from './caller.js';
import { versionView } from './views.js';

interface PromotionParent {
  task: string;
  version: number;
  championVersion: number | null;
  report: object;
}

@Resolver('Promotion')
export class PromotionsResolver {
  constructor(
    @Inject(PromotionService) private readonly promotions: PromotionService,
    @Inject(Catalogue) private readonly catalogue: Catalogue,
  ) {}

  @Mutation('approvePromotion')
  approvePromotion(
    @Args('id') id: string,
    @Args('comment') comment: string | null,
    @Args('override') override: boolean | null,
    @Caller() by: string,
  ) {
    return this.promotions.approve(id, { by, comment, override: override ?? false });
  }

  @Mutation('rejectPromotion')
  rejectPromotion(@Args('id') id: string, @Args('comment') comment: string, @Caller() by: string) {
    return this.promotions.reject(id, { by, comment });
  }

  @Mutation('rollback')
  async rollback(@Args('task') task: string, @Args('reason') reason: string, @Caller() by: string) {
    return versionView(await this.promotions.rollback(task, reason, by));
  }

  @ResolveField('version')
  async version(@Parent() promotion: PromotionParent) {
    const row = await this.catalogue.find(promotion.task, promotion.version);
    return row && versionView(row);
  }

  @ResolveField('report')
  report(@Parent() promotion: PromotionParent) {
    return this.promotions.reportOf(promotion);
  }

  @ResolveField('replicas')
  async replicas(@Parent() { task, version }: PromotionParent) {
    const row = await this.catalogue.find(task, version);
    return row?.state === 'ACTIVE' ? this.catalogue.replicasOf(task, version) : [];
  }

  @ResolveField('champion')
  async champion(@Parent() { task, championVersion }: PromotionParent) {
    const row = championVersion === null ? null : await this.catalogue.find(task, championVersion);
    return row && versionView(row);
  }
}
