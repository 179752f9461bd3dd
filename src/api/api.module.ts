/**
 * The edge to the callers: GraphQL over HTTP and WebSocket, and health. Resolvers hold no logic: they read arguments,
 * call one service, and give its rows the schema's shape. Imports: learning, registry, inference, task; not storage.
 */
import { type DynamicModule, Module, type Type } from '@nestjs/common';
import { APP_FILTER } from '@nestjs/core';
import { GraphQLModule } from '@nestjs/graphql';
import { MercuriusDriver, type MercuriusDriverConfig } from '@nestjs/mercurius';
import { ClassifyResolver } from './classify.resolver.js';
import { DeadLettersResolver } from './dead-letters.resolver.js';
import { ExpectedErrors, formatErrors } from './errors.js';
import { ExamplesResolver } from './examples.resolver.js';
import { HealthController } from './health.controller.js';
import { checkCost, depthRule, MAX_TOKENS, refuseJson } from './limits.js';
import { ModelsResolver } from './models.resolver.js';
import { PromotionsResolver } from './promotions.resolver.js';
import { ReviewResolver } from './review.resolver.js';
import { RunsResolver } from './runs.resolver.js';
import { scalars } from './scalars.js';
import { typeDefs } from './schema.js';
import { TasksResolver } from './tasks.resolver.js';

const RESOLVERS: Type[] = [
  ClassifyResolver,
  DeadLettersResolver,
  ExamplesResolver,
  ModelsResolver,
  PromotionsResolver,
  ReviewResolver,
  RunsResolver,
  TasksResolver,
];

@Module({})
export class ApiModule {
  /** Every role answers for its health; GraphQL is for the roles that serve callers. */
  static register(services: DynamicModule['imports'], graphql: boolean): DynamicModule {
    const imports = services ?? [];
    const controllers = [HealthController];
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
  return GraphQLModule.forRoot<MercuriusDriverConfig>({
    driver: MercuriusDriver,
    typeDefs,
    resolvers: scalars,
    subscription: { fullWsTransport: false },
    graphiql: false,
    allowBatchedQueries: false,
    jit: 1,
    validationRules: [depthRule],
    graphql: { parseOptions: { maxTokens: MAX_TOKENS } },
    errorFormatter: formatErrors as MercuriusDriverConfig['errorFormatter'],
    hooks: { preParsing: refuseJson, preExecution: checkCost as never },
    // Mercurius's own schema would turn the indices of an error's path into strings.
    additionalRouteOptions: { serializerCompiler: () => (data: unknown) => JSON.stringify(data) },
  } as MercuriusDriverConfig);
}
