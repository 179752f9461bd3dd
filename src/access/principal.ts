/** Who asks: a name for the records, a role, the tasks it may use. */
import { FewloopError } from '../common/errors.js';

/** Each may do all that the ones before it may. */
export const ROLES = ['CLIENT', 'LABELER', 'ENGINEER', 'ADMIN'] as const;
export type Role = (typeof ROLES)[number];

export interface Limits {
  /** 0: none. */
  requestsPerMinute: number;
  tokensPerMinute: number;
  subscriptions: number;
}

export interface Principal {
  /** `key:NAME`, `oidc:SUBJECT`, or `local` where there is no access control. */
  name: string;
  role: Role;
  /** Null: all. */
  tasks: readonly string[] | null;
  limits: Limits;
  /** Null: never. */
  expiresAt: Date | null;
  /** Of a key: which of its secrets proved it. */
  secretId?: string;
}

export const NO_LIMITS: Limits = { requestsPerMinute: 0, tokensPerMinute: 0, subscriptions: 0 };

/** Everybody who reaches the loopback address of a service without access control. */
export const LOCAL: Principal = { name: 'local', role: 'ADMIN', tasks: null, limits: NO_LIMITS, expiresAt: null };

export function isAtLeast(role: Role, least: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(least);
}

export function mayUse({ tasks }: Principal, task: string): boolean {
  return tasks === null || tasks.includes(task);
}

export function unauthenticated(why: string): FewloopError {
  return new FewloopError('UNAUTHENTICATED', why);
}

/** The same whether there is such a task or not. */
export function refusedTask({ name }: Principal, task: string): FewloopError {
  return new FewloopError('FORBIDDEN', `${name} may not use the task ${task}`);
}
