/** The schema's own scalars. */
import { GraphQLError, GraphQLScalarType, Kind, type ValueNode } from 'graphql';

export const scalars = {
  DateTime: new GraphQLScalarType<Date, string>({
    name: 'DateTime',
    serialize: (value) => (value instanceof Date ? value : new Date(String(value))).toISOString(),
    parseValue: (value) => readDate(value),
    parseLiteral: (node) => readDate(node.kind === Kind.STRING ? node.value : null),
  }),
  JSONObject: new GraphQLScalarType<object, object>({
    name: 'JSONObject',
    serialize: (value) => readObject(value),
    parseValue: (value) => readObject(value),
    parseLiteral: (node, variables) => readObject(literal(node, variables ?? {})),
  }),
};

function readDate(value: unknown): Date {
  const date = new Date(typeof value === 'string' ? value : Number.NaN);
  if (Number.isNaN(date.getTime())) throw new GraphQLError('DateTime must be an ISO 8601 string');
  return date;
}

function readObject(value: unknown): object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new GraphQLError('JSONObject must be an object');
  }
  return value;
}

function literal(node: ValueNode, variables: Record<string, unknown>): unknown {
  switch (node.kind) {
    case Kind.OBJECT:
      return Object.fromEntries(node.fields.map((field) => [field.name.value, literal(field.value, variables)]));
    case Kind.LIST:
      return node.values.map((value) => literal(value, variables));
    case Kind.INT:
    case Kind.FLOAT:
      return Number(node.value);
    case Kind.NULL:
      return null;
    case Kind.VARIABLE:
      return variables[node.name.value];
    default:
      return node.value;
  }
}
