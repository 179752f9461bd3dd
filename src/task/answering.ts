import { isDeepStrictEqual } from 'node:util';
import type { TaskDefinition } from './types.js';

/**
 * The definition that a version was made for, with what no training depends on as the task has it now: routing and the
 * serving policy. The same object where that changes nothing.
 */
export function withRoutingOf(made: TaskDefinition, now: TaskDefinition): TaskDefinition {
  const { routing } = now;
  const { policy } = now.serving;
  if (made.serving.policy === policy && isDeepStrictEqual(made.routing, routing)) return made;
  return { ...made, routing, serving: { ...made.serving, policy } };
}
