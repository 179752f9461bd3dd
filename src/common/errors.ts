/**
 * Every failure a caller can act on, as one closed union (the contract's `extensions.code`).
 * Modules throw FewloopError; each edge (GraphQL, stream, command line) maps it once.
 * Anything else that is thrown is a defect and reaches callers as INTERNAL.
 */
export const ERROR_CODES = [
  'BAD_INPUT',
  'TASK_NOT_FOUND',
  'NO_ACTIVE_MODEL',
  'VERSION_NOT_FOUND',
  'CANDIDATE_NOT_FOUND',
  'RUN_NOT_FOUND',
  'PROMOTION_NOT_FOUND',
  'RUN_IN_PROGRESS',
  'CONFLICT',
  'GATE_NOT_PASSED',
  'BUNDLE_INVALID',
  'DEADLINE_EXCEEDED',
  // Whoever asked is gone: for logs and metrics, nobody is told.
  'CANCELLED',
  'OVERLOADED',
  'QUERY_TOO_COMPLEX',
  'UNAUTHENTICATED',
  'FORBIDDEN',
  'INTERNAL',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

export interface ErrorDetails {
  /** Path of the input at fault, for BAD_INPUT. */
  field?: string;
  /** For OVERLOADED: when to try again. */
  retryAfterMs?: number;
  cause?: unknown;
}

export class FewloopError extends Error {
  override readonly name = 'FewloopError';
  readonly field: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(
    readonly code: ErrorCode,
    message: string,
    details: ErrorDetails = {},
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.field = details.field;
    this.retryAfterMs = details.retryAfterMs;
  }
}

export function badInput(field: string, message: string, cause?: unknown): FewloopError {
  return new FewloopError('BAD_INPUT', `${field}: ${message}`, { field, cause });
}

/** Throws BAD_INPUT where it could not be kept, in the ledger for one. */
export function checkCharacters(field: string, value: string): void {
  if (!value.isWellFormed()) throw badInput(field, 'holds half of a surrogate pair');
  // PostgreSQL cannot store it; every other control character is kept and the tokenizer drops it.
  if (value.includes('\0')) throw badInput(field, 'holds the character U+0000');
}
