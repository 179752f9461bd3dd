/**
 * The edge to the callers: GraphQL over HTTP and WebSocket, and health. Resolvers hold no logic: they read arguments,
 * call one service, and give its rows the schema's shape. Imports: learning, registry, inference, task; not storage.
 */
import { type DynamicModule, Inject, Module, type Type } from '@nestjs/common';
import { APP_FILTER, HttpAdapterHost } from '@nestjs/core';
import { GraphQLModule } from '@nestjs/graphql';
import { MercuriusDriver, type MercuriusDriverConfig } from '@nestjs/mercurius';
import type { FastifyInstance } from 'fastify';
import type { DocumentNode, ExecutionResult, GraphQLSchema } from 'graphql';
import { METRICS, type Metrics } from '../common/metrics/metrics.js';
import { ClassifyResolver } from './classify.resolver.js';
import { DeadLettersResolver } from './dead-letters.resolver.js';
import { ExpectedErrors, formatErrors } from './errors.js';
import { ExamplesResolver } from './examples.resolver.js';
import { HealthController } from './health.controller.js';
import { checkCost, depthRule, MAX_TOKENS, refuseJson } from './limits.js';
import { LedgerResolver } from './ledger.resolver.js';
import { MetricsController } from './metrics.controller.js';
import { ModelsResolver } from './models.resolver.js';
import { PromotionsResolver } from './promotions.resolver.js';
import { measureRequests, noteErrors, noteOperation } from './request-metrics.js';
import { ReviewResolver } from './review.resolver.js';
import { RunsResolver } from './runs.resolver.js';
import { scalars } from './scalars.js';
import { typeDefs } from './schema.js';
import { TasksResolver } from './tasks.resolver.js';

const RESOLVERS: Type[] = [
  ClassifyResolver,
  DeadLettersResolver,
  ExamplesResolver,
  LedgerResolver,
  ModelsResolver,
  PromotionsResolver,
  ReviewResolver,
  RunsResolver,
  TasksResolver,
];

@Module({})
export class ApiModule {
  /** Before any route is made: hooks are for the routes that come after. */
  constructor(@Inject(HttpAdapterHost) { httpAdapter }: HttpAdapterHost, @Inject(METRICS) metrics: Metrics) {
    measureRequests(httpAdapter.getInstance<FastifyInstance>(), metrics);
  }

  /** Every role answers for its health and its metrics; GraphQL is for the roles that serve callers. */
  static register(services: DynamicModule['imports'], graphql: boolean): DynamicModule {
    const imports = services ?? [];
    const controllers = [HealthController, MetricsController];
    if (!graphql) return { module: ApiModule, imports, controllers };
    const filter = { provide: APP_FILTER, useClass: ExpectedErrors };
    return {
      module: ApiModule,
      imports: [...imports, graphqlModule()],
      controllers,
      providers: [filter, ...RESOLVERS],
    };
  }
}

function graphqlModule(): DynamicModule {
  return GraphQLModule.forRootAsync<MercuriusDriverConfig>({
    driver: MercuriusDriver,
    inject: [METRICS],
    useFactory: graphqlOptions,
  });
}

function graphqlOptions(metrics: Metrics): MercuriusDriverConfig {
  const errorFormatter = (execution: ExecutionResult, context: unknown) => {
    const formatted = formatErrors(execution);
    noteErrors(metrics, formatted.response.errors, context);
    return formatted;
  };
  const preExecution = async (
    schema: GraphQLSchema,
    document: DocumentNode,
    context: unknown,
    variables?: Record<string, unknown>,
  ) => {
    noteOperation(document, context);
    await checkCost(schema, document, context, variables);
  };
  return {
    typeDefs,
    resolvers: scalars,
    subscription: { fullWsTransport: false },
    graphiql: false,
    allowBatchedQueries: false,
    jit: 1,
    validationRules: [depthRule],
    graphql: { parseOptions: { maxTokens: MAX_TOKENS } },
    errorFormatter: errorFormatter as MercuriusDriverConfig['errorFormatter'],
    hooks: { preParsing: refuseJson, preExecution: preExecution as never },
    // Mercurius's own schema would turn the indices of an error's path into strings.
    additionalRouteOptions: { serializerCompiler: () => (data: unknown) => JSON.stringify(data) },
  } as MercuriusDriverConfig;
}
