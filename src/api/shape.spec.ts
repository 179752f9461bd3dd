import { parse } from 'graphql';
import { describe, expect, it } from 'vitest';
import { checkShape } from './shape.js';

const refusal = (what: string) =>
  expect.objectContaining({ message: expect.stringContaining(what), extensions: { code: 'QUERY_TOO_COMPLEX' } });
const check = (query: string) => checkShape(parse(query));
const times = (count: number, text: (i: number) => string) =>
  Array.from({ length: count }, (_, i) => text(i)).join(' ');
const nested = (depth: number, wrap: (inner: string) => string, innermost: string) => {
  let query = innermost;
  for (let i = 0; i < depth; i++) query = wrap(query);
  return query;
};

describe('a document that would cost too much', () => {
  it.each([
    ['depth', nested(9, (inner) => `{ a ${inner} }`, '')],
    ['depth', nested(9, (inner) => `{ ... on Query { a ${inner} } }`, '')],
    [
      'depth',
      `{ a { ...F } } fragment F on T { b { ...G } } fragment G on T ${nested(7, (inner) => `{ c ${inner} }`, '')}`,
    ],
    ['fields', `{ ${times(20, (i) => `r${i}: a { ${times(60, () => '__typename')} }`)} }`],
    ['fields', `{ ${times(10, () => '...F')} } fragment F on Q { x { ${times(110, (i) => `f${i}`)} } }`],
    [
      'eventFields',
      `subscription { a { ${times(50, (i) => `f${i}`)} ...F } } fragment F on T { ${times(50, (i) => `g${i}`)} }`,
    ],
    ['aliases', `{ a { ${times(101, (i) => `x${i}: __typename`)} } }`],
    ['aliases', `{ a { ... on T { ...F ...F } } } fragment F on T { ${times(51, (i) => `x${i}: b`)} }`],
    ['rootFields', `{ ${times(21, (i) => `a${i}: tasks`)} }`],
    ['rootFields', `{ ${times(11, () => '...F')} } fragment F on Query { a b }`],
    ['rootFields', `{ ... { ${times(21, (i) => `a${i}: tasks`)} } }`],
    ['directives', `{ a ${times(51, () => '@include(if: true)')} }`],
    ['directives', `query ${times(51, () => '@x')} { a }`],
    ['written', `{ ${times(5_001, () => 'a')} }`],
    ['definitions', times(51, (i) => `query Q${i} { a }`)],
    ['nesting', nested(60, (inner) => `{ ... ${inner} }`, '{ a }')],
  ])('%s: %.60s', (what, query) => {
    expect(() => check(query)).toThrow(refusal(what));
  });

  it('is refused in time where fragments spread each other by powers of two', () => {
    const chain = times(45, (i) => `fragment F${i} on T { ...F${i + 1} ...F${i + 1} }`);
    const started = process.cpuUsage();
    expect(() => check(`{ a { ...F0 } } ${chain} fragment F45 on T { b }`)).toThrow(refusal('fields'));
    expect(process.cpuUsage(started).user / 1000).toBeLessThan(500);
  });
});

describe('an ordinary document', () => {
  it.each([
    ['{ tasks { name versions { version report } pool { total } } }'],
    [`{ ${times(20, (i) => `t${i}: task(name: "x") { name }`)} }`],
    // A fragment in itself is validation's to refuse.
    ['{ a { ...F } } fragment F on T { b ...F }'],
    ['{ a { ...Missing } }'],
  ])('is let through: %.50s', (query) => {
    expect(() => check(query)).not.toThrow();
  });

  it('may ask for the whole schema', async () => {
    const { getIntrospectionQuery } = await import('graphql');
    expect(() => check(getIntrospectionQuery())).not.toThrow();
  });
});
