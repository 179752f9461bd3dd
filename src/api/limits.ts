/** What one request may ask: its size and its cost; shape.ts has what its document may look like. */
import { type DocumentNode, GraphQLError, type GraphQLSchema, Kind, visit } from 'graphql';
import { type ComplexityEstimator, getComplexity } from 'graphql-query-complexity';
import { badInput } from '../common/errors.js';

/** Fields of the answer, an estimate: each counts one, a list as often as `first` or its usual length. */
const MAX_COST = 20_000;
const USUAL_LENGTH = 20;
const MAX_PAGE = 500;
/** A request with the most texts written into its query is some 10,000. */
export const MAX_TOKENS = 20_000;
/** Texts can go in variables instead, which are not kept. */
const MAX_QUERY_LENGTH = 2 ** 20;
/** Of parsed queries; Mercurius keeps up to four times as many, half of them refused ones, however large they are. */
export const KEPT_QUERIES = 32;

/** Of documents that cost the same whatever their variables are. Mercurius parses a query once and keeps its document. */
const costs = new WeakMap<DocumentNode, number>();

/** Mercurius's hook before execution. */
export async function checkCost(
  schema: GraphQLSchema,
  document: DocumentNode,
  _context: unknown,
  variables?: Record<string, unknown>,
): Promise<void> {
  let cost = costs.get(document);
  if (cost === undefined) {
    cost = getComplexity({ schema, query: document, variables: variables ?? {}, estimators: [estimate] });
    if (!hangsOnVariables(document)) costs.set(document, cost);
  }
  if (cost > MAX_COST) throw tooComplex(`the query costs ${cost}; at most ${MAX_COST} is answered`);
}

/** Whether variables say how long a list is, or which fields are in the answer. */
function hangsOnVariables(document: DocumentNode): boolean {
  let found = false;
  visit(document, {
    Argument: ({ name, value }) => {
      if (name.value === 'first' && value.kind === Kind.VARIABLE) found = true;
    },
    Directive: () => {
      found = true;
    },
  });
  return found;
}

/** Mercurius's hook before parsing, which would keep any length. It takes a document that was parsed already, as JSON, and fails on any other JSON. */
export async function refuseSource(_schema: GraphQLSchema, source: string): Promise<void> {
  if (source.length > MAX_QUERY_LENGTH) {
    throw tooComplex(`the query is longer than ${MAX_QUERY_LENGTH} characters: put texts in variables`);
  }
  // A failure to parse costs more than to look: most requests begin so.
  if (/^\s*(query|mutation|subscription)\b/u.test(source)) return;
  try {
    JSON.parse(source);
  } catch {
    return;
  }
  throw badInput('query', 'is no GraphQL document');
}

export function checkCount(field: string, list: readonly unknown[], most: number): void {
  if (list.length > most) throw badInput(field, `${list.length} are given; a request takes at most ${most}`);
}

export function checkPage(first: number): number {
  if (first < 1 || first > MAX_PAGE) throw badInput('first', `must be 1 to ${MAX_PAGE}`);
  return first;
}

const estimate: ComplexityEstimator = ({ args, childComplexity, field, type }) => {
  const first = (args as { first?: unknown }).first;
  const isRootList = type.name === 'Query' && field.name === 'tasks';
  const times = typeof first === 'number' ? Math.max(1, first) : isRootList ? USUAL_LENGTH : 1;
  return 1 + times * childComplexity;
};

function tooComplex(message: string): GraphQLError {
  return new GraphQLError(message, { extensions: { code: 'QUERY_TOO_COMPLEX' } });
}
