import { createRequire } from 'node:module';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { checkCost, refuseSource } from './limits.js';

const { counted } = vi.hoisted(() => ({ counted: { times: 0 } }));
vi.mock('graphql-query-complexity', async (original) => {
  const library = await original<typeof import('graphql-query-complexity')>();
  const getComplexity: typeof library.getComplexity = (options) => {
    counted.times++;
    return library.getComplexity(options);
  };
  return { ...library, getComplexity };
});

// The library's own copy: under the test runner an import would be another one.
const { buildSchema, parse } = createRequire(import.meta.url)('graphql') as typeof import('graphql');
const schema = buildSchema('type Query { runs(first: Int): [Run!]! } type Run { id: ID! metrics: String }');
const check = (document: ReturnType<typeof parse>, variables = {}) => checkCost(schema, document, null, variables);

beforeEach(() => {
  counted.times = 0;
});

describe('the cost of a query', () => {
  it('is reckoned once where variables cannot change it', async () => {
    const document = parse('query ($unused: Int) { runs(first: 5) { id } }');
    await check(document, { unused: 1 });
    await check(document, { unused: 2 });
    expect(counted.times).toBe(1);
  });

  it('is refused each time where it is too much', async () => {
    const document = parse('{ runs(first: 20001) { id } }');
    await expect(check(document)).rejects.toMatchObject({ extensions: { code: 'QUERY_TOO_COMPLEX' } });
    await expect(check(document)).rejects.toMatchObject({ extensions: { code: 'QUERY_TOO_COMPLEX' } });
  });

  it('is reckoned anew where a variable says how long a list is', async () => {
    const document = parse('query ($n: Int) { runs(first: $n) { id } }');
    await check(document, { n: 5 });
    await expect(check(document, { n: 20_001 })).rejects.toMatchObject({ extensions: { code: 'QUERY_TOO_COMPLEX' } });
  });

  it('is reckoned anew where a variable says which fields there are', async () => {
    const document = parse('query ($all: Boolean!) { runs(first: 15000) { id metrics @include(if: $all) } }');
    await check(document, { all: false });
    await expect(check(document, { all: true })).rejects.toMatchObject({ extensions: { code: 'QUERY_TOO_COMPLEX' } });
  });
});

describe('refuseSource', () => {
  it.each(['query { a }', '{ a }', 'mutation { a }', 'fragment F on Q { a }', '', 'queryable'])(
    'lets %j be parsed',
    async (source) => {
      await expect(refuseSource(schema, source)).resolves.toBeUndefined();
    },
  );

  it.each(['{"a": 1}', '"query"', '12', 'true', ' null', '[]'])('refuses %j', async (source) => {
    await expect(refuseSource(schema, source)).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'query' });
  });

  it('refuses more than is kept of a query', async () => {
    const query = (length: number) => `{ a(text: "${'好'.repeat(length)}") }`;
    await expect(refuseSource(schema, query(2 ** 20 - 20))).resolves.toBeUndefined();
    await expect(refuseSource(schema, query(2 ** 20))).rejects.toMatchObject({
      extensions: { code: 'QUERY_TOO_COMPLEX' },
    });
  });
});
