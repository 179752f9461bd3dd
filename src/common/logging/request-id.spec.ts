import { expect, it } from 'vitest';
import { requestId } from './request-id.js';

const asked = (given?: string) => requestId({ headers: { 'x-request-id': given } });

it("takes the caller's", () => {
  expect(asked('order-17/4bf92f35')).toBe('order-17/4bf92f35');
});

it.each([undefined, '', 'two\nlines', '{"level":60}', 'x'.repeat(129)])('makes one in place of %j', (given) => {
  expect(asked(given)).toMatch(/^[0-9a-f-]{36}$/u);
});
