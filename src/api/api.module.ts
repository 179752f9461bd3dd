/**
 * The edge to the callers: GraphQL over HTTP and WebSocket, and health. Resolvers hold no logic: they read arguments,
 * call one service, and give its rows the schema's shape. Imports: access, learning, registry, inference, task; not storage.
 */
import { type DynamicModule, Inject, Module, type Type } from '@nestjs/common';
import { APP_FILTER, HttpAdapterHost } from '@nestjs/core';
import { GraphQLModule } from '@nestjs/graphql';
import { MercuriusDriver, type MercuriusDriverConfig } from '@nestjs/mercurius';
import type { FastifyInstance } from 'fastify';
import { AccessModule } from '../access/access.module.js';
import { Authenticator } from '../access/authenticator.js';
import { TaskOf } from '../access/task-of.js';
import { Usage } from '../access/usage.js';
import { METRICS, type Metrics } from '../common/metrics/metrics.js';
import { Config } from '../config/config.js';
import { ClassifyResolver } from './classify.resolver.js';
import { DeadLettersResolver } from './dead-letters.resolver.js';
import { ExpectedErrors } from './errors.js';
import { ExamplesResolver } from './examples.resolver.js';
import { HealthController } from './health.controller.js';
import { Gate } from './gate.js';
import { answerFormatter, graphqlOptions } from './graphql-options.js';
import type { Access } from './guard.js';
import { KeysResolver } from './keys.resolver.js';
import { LedgerResolver } from './ledger.resolver.js';
import { MetricsController } from './metrics.controller.js';
import { ModelsResolver } from './models.resolver.js';
import { PromotionsResolver } from './promotions.resolver.js';
import {
  CandidateConnectionResolver,
  ExampleConnectionResolver,
  LeasedQuestionsResolver,
} from './counted.resolvers.js';
import { TrialsResolver } from './trials.resolver.js';
import { measureRequests } from './request-metrics.js';
import { ReviewResolver } from './review.resolver.js';
import { RunsResolver } from './runs.resolver.js';
import { serveSubscriptions } from './sockets.js';
import { TasksResolver } from './tasks.resolver.js';
import { Work } from './work.js';

/** What the guard of the schema asks. */
const ACCESS = Symbol('access');

const RESOLVERS: Type[] = [
  ClassifyResolver,
  DeadLettersResolver,
  ExamplesResolver,
  LedgerResolver,
  KeysResolver,
  ModelsResolver,
  PromotionsResolver,
  CandidateConnectionResolver,
  ExampleConnectionResolver,
  LeasedQuestionsResolver,
  TrialsResolver,
  ReviewResolver,
  RunsResolver,
  TasksResolver,
];

@Module({})
export class ApiModule {
  /** Before any route is made: hooks are for the routes that come after. */
  constructor(
    @Inject(HttpAdapterHost) { httpAdapter }: HttpAdapterHost,
    @Inject(METRICS) metrics: Metrics,
    @Inject(Gate) gate: Gate,
  ) {
    const fastify = httpAdapter.getInstance<FastifyInstance>();
    measureRequests(fastify, metrics);
    gate.guard(fastify);
    serveSubscriptions(fastify, gate, answerFormatter(metrics));
  }

  /** Every role answers for its health and its metrics; GraphQL is for the roles that serve callers. */
  static register(services: DynamicModule['imports'], graphql: boolean): DynamicModule {
    const imports = [...(services ?? []), GateModule];
    const controllers = [HealthController, MetricsController];
    if (!graphql) return { module: ApiModule, imports, controllers };
    const filter = { provide: APP_FILTER, useClass: ExpectedErrors };
    return {
      module: ApiModule,
      imports: [...imports, graphqlModule()],
      controllers,
      providers: [filter, Work, ...RESOLVERS],
    };
  }
}

/** For the module of GraphQL, which is made before the one that imports it. */
@Module({
  imports: [AccessModule],
  providers: [
    {
      provide: ACCESS,
      inject: [Authenticator, TaskOf, Usage],
      useFactory: (authenticator: Authenticator, taskOf: TaskOf, usage: Usage): Access => ({
        authenticator,
        taskOf,
        usage,
      }),
    },
    {
      provide: Gate,
      inject: [ACCESS, Config],
      useFactory: (access: Access, { trustedDocuments }: Config) => new Gate(access, trustedDocuments),
    },
  ],
  exports: [AccessModule, ACCESS, Gate],
})
class GateModule {}

function graphqlModule(): DynamicModule {
  return GraphQLModule.forRootAsync<MercuriusDriverConfig>({
    driver: MercuriusDriver,
    imports: [GateModule],
    inject: [METRICS, ACCESS, Gate],
    useFactory: graphqlOptions,
  });
}
