import { GraphQLError } from 'graphql';
import { describe, expect, it } from 'vitest';
import { FewloopError } from '../common/errors.js';
import { toAnswer } from './errors.js';

const answerTo = (originalError: Error) =>
  toAnswer(new GraphQLError('x', { path: ['task'], originalError })).extensions;

describe('errors of a resolver', () => {
  it.each(['ECONNREFUSED', 'ECONNRESET', '57P01', '57P03', '08006', '53300'])(
    'of code %s: the database is away, ask again',
    (code) => {
      const error = Object.assign(new Error('of the driver'), { code });
      expect(answerTo(error)).toEqual({ code: 'OVERLOADED', retryAfterMs: expect.any(Number) });
    },
  );

  it('a connection that was cut has no code', () => {
    expect(answerTo(new Error('Connection terminated unexpectedly'))).toMatchObject({ code: 'OVERLOADED' });
  });

  it.each([
    ['a constraint', Object.assign(new Error('duplicate key'), { code: '23505' })],
    ['a defect', new TypeError('x is not a function')],
  ])('%s: INTERNAL, with an id for the log and no detail', (_, error) => {
    const { message } = toAnswer(new GraphQLError('x', { path: ['task'], originalError: error }));
    expect(answerTo(error)).toEqual({ code: 'INTERNAL', logId: expect.any(String) });
    expect(message).not.toContain(error.message);
  });

  it('an expected one keeps its code and field', () => {
    const error = new FewloopError('BAD_INPUT', 'text: is empty', { field: 'text' });
    expect(answerTo(error)).toEqual({ code: 'BAD_INPUT', field: 'text' });
  });
});
