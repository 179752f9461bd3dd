/** The schema that is served holds all of the contract's, under the same names and types. */
import { buildSchema, findBreakingChanges, graphql } from 'graphql';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { typeDefs } from '../../src/api/schema.js';

const contract = buildSchema(readFileSync(new URL('./schema.graphql', import.meta.url), 'utf8'));

describe('the schema', () => {
  it('breaks nothing of the contract', () => {
    expect(findBreakingChanges(contract, buildSchema(typeDefs))).toEqual([]);
  });

  it('would not pass with a renamed field, a nullable answer or a new required argument', () => {
    for (const [from, to] of [
      ['voteEntropy: Float!', 'entropyOfVotes: Float!'],
      ['route: Route!', 'route: Route'],
      ['startRetrain(task: String!)', 'startRetrain(task: String!, why: String!)'],
    ] as const) {
      const changed = buildSchema(typeDefs.replace(from, to));
      expect(findBreakingChanges(contract, changed)).not.toEqual([]);
    }
  });

  it('has room for what the stream counts for ever', async () => {
    const stream = { pending: 3e9, scored: 5e9, failed: 4e9 };
    const source = '{ task(name: "t") { stream { pending scored failed } } }';
    const answer = await graphql({ schema: buildSchema(typeDefs), source, rootValue: { task: { stream } } });
    expect(answer).toEqual({ data: { task: { stream } } });
  });
});
