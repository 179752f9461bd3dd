/** Commands that ask for all that is known of a thing show each role what it may see of it. */
import { buildSchema, parse, TypeInfo, visit, visitWithTypeInfo } from 'graphql';
import { describe, expect, it } from 'vitest';
import { type Asked, refused, runCommand } from '../../../test/fixtures/command.js';
import { isAtLeast, type Role } from '../../access/principal.js';
import { roleOf } from '../../api/field-roles.js';
import { typeDefs } from '../../api/schema.js';

const schema = buildSchema(typeDefs);

/** Of every field that is selected. */
function rolesOf(query: string): Role[] {
  const roles: Role[] = [];
  const info = new TypeInfo(schema);
  const Field = ({ name }: { name: { value: string } }) => {
    roles.push(roleOf(info.getParentType()!.name, name.value));
  };
  visit(parse(query), visitWithTypeInfo(info, { Field }));
  return roles;
}

/** Of a service that holds a key of that role to it. */
function runAs(role: Role, data: object, ...args: string[]) {
  const asked: string[] = [];
  const answer = ({ query }: Asked) => {
    asked.push(query);
    return rolesOf(query).every((needed) => isAtLeast(role, needed)) ? { data } : refused('FORBIDDEN', 'not for you');
  };
  return runCommand(answer, '--json', ...args).then((ran) => ({ ...ran, query: asked.at(-1)! }));
}

describe.each(['CLIENT', 'LABELER', 'ENGINEER', 'ADMIN'] as const)('%s', (role) => {
  it('lists tasks', async () => {
    const tasks = [{ name: 'reviews', kind: 'SINGLE_LABEL', revision: 1, activeVersion: { version: 3 } }];
    const { code, out, query } = await runAs(role, { tasks }, 'task', 'list');
    expect([code, JSON.parse(out)]).toEqual([0, tasks]);
    expect(query.includes('examples')).toBe(role !== 'CLIENT');
  });

  it('shows a task', async () => {
    const task = { name: 'reviews' };
    const { code, out, query } = await runAs(role, { task }, 'task', 'show', 'reviews');
    expect([code, JSON.parse(out)]).toEqual([0, task]);
    expect(query).toContain('labels');
    expect(query.includes('pool')).toBe(role !== 'CLIENT');
    expect(query.includes('drift')).toBe(isAtLeast(role, 'ENGINEER'));
  });

  it.runIf(role !== 'CLIENT')('shows a run', async () => {
    const { code, query } = await runAs(role, { trainingRun: { id: '1' } }, 'run', 'show', '1');
    expect(code).toBe(0);
    expect(query.includes('explanation')).toBe(isAtLeast(role, 'ENGINEER'));
  });
});

it('says what is not for the caller at all', async () => {
  const { code, out } = await runAs('CLIENT', {}, 'run', 'show', '1');
  expect([code, JSON.parse(out)]).toEqual([1, { error: { code: 'FORBIDDEN', message: 'not for you' } }]);
});
