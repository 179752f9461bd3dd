/**
 * The edge to the callers: GraphQL over HTTP and WebSocket, and health. Resolvers hold no logic: they read arguments,
 * call one service, and give its rows the schema's shape. Imports: access, learning, registry, inference, task; not storage.
 */
import { type DynamicModule, Inject, Module, type Type } from '@nestjs/common';
import { APP_FILTER, HttpAdapterHost } from '@nestjs/core';
import { GraphQLModule } from '@nestjs/graphql';
import { MercuriusDriver, type MercuriusDriverConfig } from '@nestjs/mercurius';
import type { FastifyInstance } from 'fastify';
import type { DocumentNode, ExecutionResult, GraphQLSchema } from 'graphql';
import { AccessModule } from '../access/access.module.js';
import { Authenticator } from '../access/authenticator.js';
import { TaskOf } from '../access/task-of.js';
import { Usage } from '../access/usage.js';
import { METRICS, type Metrics } from '../common/metrics/metrics.js';
import { Config } from '../config/config.js';
import { ClassifyResolver } from './classify.resolver.js';
import { DeadLettersResolver } from './dead-letters.resolver.js';
import { ExpectedErrors, formatErrors, withoutSuggestions } from './errors.js';
import { ExamplesResolver } from './examples.resolver.js';
import { HealthController } from './health.controller.js';
import { asAnswer, Gate, isClient, refuseIntrospection } from './gate.js';
import { type Access, guardSchema } from './guard.js';
import { KeysResolver } from './keys.resolver.js';
import { checkCost, MAX_TOKENS, refuseJson } from './limits.js';
import { MetricsController } from './metrics.controller.js';
import { ModelsResolver } from './models.resolver.js';
import { PromotionsResolver } from './promotions.resolver.js';
import { measureRequests, noteErrors, noteOperation } from './request-metrics.js';
import { ReviewResolver } from './review.resolver.js';
import { RunsResolver } from './runs.resolver.js';
import { checkShape } from './shape.js';
import { scalars } from './scalars.js';
import { typeDefs } from './schema.js';
import { TasksResolver } from './tasks.resolver.js';
import { Work } from './work.js';

/** What the guard of the schema asks. */
const ACCESS = Symbol('access');

const RESOLVERS: Type[] = [
  ClassifyResolver,
  DeadLettersResolver,
  ExamplesResolver,
  KeysResolver,
  ModelsResolver,
  PromotionsResolver,
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

function graphqlOptions(metrics: Metrics, access: Access, gate: Gate): MercuriusDriverConfig {
  const errorFormatter = (execution: ExecutionResult, context: unknown) => {
    const { statusCode, response } = formatErrors(execution);
    const errors = isClient(context) ? response.errors?.map(withoutSuggestions) : response.errors;
    noteErrors(metrics, errors, context);
    return { statusCode, response: { ...response, errors } };
  };
  const preParsing = async (schema: GraphQLSchema, source: string, context: unknown) => {
    gate.checkTrusted(source, context);
    await refuseJson(schema, source);
  };
  const preValidation = async (_schema: GraphQLSchema, document: DocumentNode) => checkShape(document);
  const preExecution = async (
    schema: GraphQLSchema,
    document: DocumentNode,
    context: unknown,
    variables?: Record<string, unknown>,
  ) => {
    noteOperation(document, context);
    refuseIntrospection(document, context);
    await checkCost(schema, document, context, variables);
  };
  const preSubscriptionParsing = async (_schema: GraphQLSchema, source: string, context: unknown) => {
    try {
      gate.checkTrusted(source, context);
    } catch (error) {
      throw asAnswer(error as Error);
    }
  };
  const preSubscriptionExecution = async (schema: GraphQLSchema, document: DocumentNode) =>
    gate.checkSubscription(schema, document);
  return {
    typeDefs,
    resolvers: scalars,
    transformSchema: (schema: GraphQLSchema) => guardSchema(schema, access),
    context: gate.context,
    subscription: gate.subscription,
    graphiql: false,
    allowBatchedQueries: false,
    jit: 1,
    graphql: { parseOptions: { maxTokens: MAX_TOKENS } },
    errorFormatter: errorFormatter as MercuriusDriverConfig['errorFormatter'],
    hooks: {
      preParsing,
      preValidation,
      preExecution: preExecution as never,
      preSubscriptionParsing,
      preSubscriptionExecution,
    },
    // Mercurius's own schema would turn the indices of an error's path into strings.
    additionalRouteOptions: { serializerCompiler: () => (data: unknown) => JSON.stringify(data) },
  } as MercuriusDriverConfig;
}
