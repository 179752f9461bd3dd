/**
 * API keys as they are given out: `fwl_ID_SECRET`. The secret is 256 random bits, so a plain SHA-256 of it is what is
 * kept: nobody can try all of them, and a slow hash would cost every request. The id finds it.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

const KEY = /^fwl_([0-9a-f]{16})_([\w-]{43})$/u;

export interface MadeKey {
  /** Shown once. */
  key: string;
  id: string;
  hash: Buffer;
}

export function makeKey(): MadeKey {
  const id = randomBytes(8).toString('hex');
  const secret = randomBytes(32).toString('base64url');
  return { key: `fwl_${id}_${secret}`, id, hash: hashOf(secret) };
}

/** Undefined where it is none of ours. */
export function parseKey(token: string): { id: string; hash: Buffer } | undefined {
  const [, id, secret] = KEY.exec(token) ?? [];
  return id === undefined || secret === undefined ? undefined : { id, hash: hashOf(secret) };
}

export function hashOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}

/** In a time that does not tell where they differ. */
export function isSame(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}
