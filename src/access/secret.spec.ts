import { expect, it } from 'vitest';
import { hashOf, isSame, makeKey, parseKey } from './secret.js';

it('a key proves itself by its hash, and another does not', () => {
  const one = makeKey();
  const other = makeKey();
  expect(parseKey(one.key)).toEqual({ id: one.id, hash: one.hash });
  expect(isSame(parseKey(one.key)!.hash, other.hash)).toBe(false);
  expect(JSON.stringify({ ...one, key: '' })).not.toContain(one.key.split('_')[2]);
});

it.each(['', 'fwl_', 'fwl_0123456789abcdef_short', 'xyz_0123456789abcdef_'.padEnd(64, 'a'), `${makeKey().key} `])(
  'takes %j for none of ours',
  (token) => expect(parseKey(token)).toBeUndefined(),
);

it('has 256 random bits', () => {
  const secrets = new Set(Array.from({ length: 100 }, () => makeKey().key.slice(21)));
  expect(secrets.size).toBe(100);
  for (const secret of secrets) expect(Buffer.from(secret, 'base64url')).toHaveLength(32);
  expect(hashOf('x')).toHaveLength(32);
});
