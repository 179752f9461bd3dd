/** How Mercurius serves the schema: behind the gate and the guard, within bounds, and with Fewloop's answers for failures. */
import type { MercuriusDriverConfig } from '@nestjs/mercurius';
import type { DocumentNode, ExecutionResult, GraphQLSchema } from 'graphql';
import type { Metrics } from '../common/metrics/metrics.js';
import { formatErrors, withoutSuggestions } from './errors.js';
import { type Gate, isClient, refuseIntrospection } from './gate.js';
import { type Access, guardSchema } from './guard.js';
import { checkCost, KEPT_QUERIES, MAX_TOKENS, refuseSource } from './limits.js';
import { noteErrors, noteOperation } from './request-metrics.js';
import { scalars } from './scalars.js';
import { typeDefs } from './schema.js';
import { checkShape } from './shape.js';

/** Executions as whoever asked may see them. */
export function answerFormatter(metrics: Metrics) {
  return (execution: ExecutionResult, context: unknown) => {
    const { statusCode, response } = formatErrors(execution);
    const errors = isClient(context) ? response.errors?.map(withoutSuggestions) : response.errors;
    noteErrors(metrics, errors, context);
    return { statusCode, response: { ...response, errors } };
  };
}

export function graphqlOptions(metrics: Metrics, access: Access, gate: Gate): MercuriusDriverConfig {
  const errorFormatter = answerFormatter(metrics);
  const preParsing = async (schema: GraphQLSchema, source: string, context: unknown) => {
    gate.checkTrusted(source, context);
    await refuseSource(schema, source);
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
  return {
    typeDefs,
    resolvers: scalars,
    transformSchema: (schema: GraphQLSchema) => guardSchema(schema, access),
    context: gate.context,
    graphiql: false,
    allowBatchedQueries: false,
    jit: 1,
    cache: KEPT_QUERIES,
    graphql: { parseOptions: { maxTokens: MAX_TOKENS } },
    errorFormatter: errorFormatter as MercuriusDriverConfig['errorFormatter'],
    hooks: {
      preParsing,
      preValidation,
      preExecution: preExecution as never,
    },
    // Mercurius's own schema would turn the indices of an error's path into strings.
    additionalRouteOptions: { serializerCompiler: () => (data: unknown) => JSON.stringify(data) },
  } as MercuriusDriverConfig;
}
