import type { IncomingMessage, ServerResponse } from 'node:http';
import { expect, it, vi } from 'vitest';
import { requestId } from './request-id.js';

function asked(given?: string | string[]) {
  const setHeader = vi.fn();
  const request = { headers: { 'x-request-id': given } } as unknown as IncomingMessage;
  const id = requestId(request, { setHeader } as unknown as ServerResponse);
  expect(setHeader).toHaveBeenCalledExactlyOnceWith('x-request-id', id);
  return id;
}

it("takes the caller's, and tells it", () => {
  expect(asked('order-17/4bf92f35')).toBe('order-17/4bf92f35');
});

it.each([undefined, '', 'two\nlines', '{"level":60}', 'x'.repeat(129)])('makes one in place of %j', (given) => {
  expect(asked(given)).toMatch(/^[0-9a-f-]{36}$/u);
});
