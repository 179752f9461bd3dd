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

/** What a model is trained for: a version keeps its own until the next one is promoted. */
const TRAINED_FOR = ['method', 'labels', 'templates', 'input', 'efl', 'maxLength'] as const;

/** Which of the task's fields a version that was made for another revision does not follow. */
export function keptFrom(made: TaskDefinition, now: TaskDefinition): string[] {
  return TRAINED_FOR.filter((field) => !isDeepStrictEqual(made[field], now[field]));
}
