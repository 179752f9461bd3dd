import { Inject } from '@nestjs/common';
import { Args, Context, Mutation, Query, Resolver } from '@nestjs/graphql';
import { Config } from '../config/config.js';
import { ExampleExport } from '../learning/example-export.js';
import { type ExampleInput, ExampleService } from '../learning/examples.js';
import { ForgetService } from '../learning/forget.js';
import { type IngestInput, IngestService } from '../learning/ingest.js';
import { RevocationService, type RevocationRequest } from '../learning/revocation.js';
import type { Prediction } from '../inference/types.js';
import { TaskService } from '../learning/task-service.js';
import { Caller } from './caller.js';
import { checkCount, checkPage } from './limits.js';
import { exampleView, predictionView, withoutNulls } from './views.js';
import { Work, type WorkContext } from './work.js';

type ExampleArgument = Omit<ExampleInput, 'split'> & { split?: 'TRAIN' | 'DEV' | 'TEST' | null };

@Resolver()
export class ExamplesResolver {
  constructor(
    @Inject(Config) private readonly config: Config,
    @Inject(TaskService) private readonly tasks: TaskService,
    @Inject(ExampleService) private readonly examples: ExampleService,
    @Inject(ExampleExport) private readonly exports: ExampleExport,
    @Inject(IngestService) private readonly ingestion: IngestService,
    @Inject(Work) private readonly work: Work,
    @Inject(ForgetService) private readonly forgetting: ForgetService,
    @Inject(RevocationService) private readonly revocations: RevocationService,
  ) {}

  @Mutation('importExamples')
  importExamples(@Args('task') task: string, @Args('examples') examples: ExampleArgument[], @Caller() by: string) {
    checkCount('examples', examples, this.config.textsPerRequest);
    return this.examples.import(task, examples.map(readExample), by);
  }

  @Mutation('ingest')
  async ingest(@Args('task') task: string, @Args('inputs') inputs: IngestInput[], @Context() context: WorkContext) {
    checkCount('inputs', inputs, this.config.textsPerRequest);
    const given = inputs.map((input) => withoutNulls<IngestInput>({ ...input }));
    await this.work.charge(context, await this.ingestion.tokensOf(task, given));
    return this.ingestion.ingest(task, given);
  }

  @Query('exportExamples')
  async exportExamples(
    @Args('task') task: string,
    @Args('first') first: number,
    @Args('after') after: string | null | undefined,
    @Args('predictions') predictions: boolean | null,
  ) {
    await this.tasks.get(task);
    const { rows, more } = await this.exports.page(task, checkPage(first), after ?? null);
    const said = predictions ? await this.exports.predictions(task, rows) : new Map<string, object>();
    const nodes = rows.map((row) => {
      const prediction = said.get(row.itemKey) as Prediction | undefined;
      return { ...exampleView(row), prediction: prediction ? predictionView(prediction, null) : null };
    });
    const pageInfo = { hasNextPage: more, endCursor: rows.at(-1)?.id ?? null };
    return { nodes, pageInfo, count: () => this.exports.count(task) };
  }

  @Mutation('revokeExamples')
  revokeExamples(
    @Args('task') task: string,
    @Args('source') source: RevocationRequest,
    @Args('restore') restore: boolean | null,
    @Args('dryRun') dryRun: boolean | null,
    @Caller() by: string,
  ) {
    return this.revocations.revoke(task, { ...source, restore, dryRun }, by);
  }

  @Query('pendingErasures')
  pendingErasures() {
    return this.forgetting.pending();
  }

  @Mutation('forget')
  forget(
    @Args('task') task: string,
    @Args('text') text: string | null | undefined,
    @Args('id') id: string | null | undefined,
    @Args('digest') digest: string | null | undefined,
    @Caller() by: string,
  ) {
    return this.forgetting.forget(task, { text, id, digest }, by);
  }
}

function readExample({ split, ...example }: ExampleArgument): ExampleInput {
  return withoutNulls({ ...example, split: (split?.toLowerCase() ?? null) as ExampleInput['split'] });
}
