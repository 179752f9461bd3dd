/** Which members answer, by the serving policy. */
import { badInput } from '../common/errors.js';
import type { ServingPolicy, TaskDefinition } from '../task/types.js';
import type { Member } from './types.js';

/** Of a model, open or only known by its manifest. */
export interface Answering<M extends Pick<Member, 'role'> = Pick<Member, 'role'>> {
  task: string;
  version: number;
  definition: TaskDefinition;
  members: M[];
}

/**
 * The policy that answers. One that is asked for must be possible; the task's own falls back to what the version has,
 * because a version without training has no student.
 */
export function policyOf(model: Answering, asked?: ServingPolicy): ServingPolicy {
  const wanted = asked ?? model.definition.serving.policy;
  const needed = wanted === 'cascade' ? (['student', 'ensemble'] as const) : [wanted];
  const lacking = needed.find((policy) => membersOf(model, policy).length === 0);
  if (lacking === undefined) return wanted;
  if (asked !== undefined) throw badInput('policy', `version ${model.version} of ${model.task} has no ${lacking}`);
  return lacking === 'student' ? 'ensemble' : 'student';
}

export function membersOf<M extends Pick<Member, 'role'>>(
  { members }: { members: M[] },
  policy: 'ensemble' | 'student',
): M[] {
  return members.filter(({ role }) => role === (policy === 'student' ? 'student' : 'teacher'));
}
