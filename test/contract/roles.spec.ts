/** Every field of the schema has a least role, and every root field a scope: none is left to chance. */
import { buildSchema, type GraphQLObjectType, isObjectType } from 'graphql';
import { describe, expect, it } from 'vitest';
import { ROLES } from '../../src/access/principal.js';
import { FIELD_ROLES, ROOT_RULES, roleOf, ruleOf, type Scope } from '../../src/api/field-roles.js';
import { typeDefs } from '../../src/api/schema.js';

const schema = buildSchema(typeDefs);
const types = Object.values(schema.getTypeMap()).filter(
  (type): type is GraphQLObjectType => isObjectType(type) && !type.name.startsWith('__'),
);
const roots = types.filter(({ name }) => name in ROOT_RULES);
const others = types.filter(({ name }) => !(name in ROOT_RULES));
const fieldsOf = (some: GraphQLObjectType[]) =>
  some.flatMap((type) => Object.keys(type.getFields()).map((field) => `${type.name}.${field}`));

describe('field-roles.ts', () => {
  it('has every root field', () => {
    const named = Object.entries(ROOT_RULES).flatMap(([type, rules]) =>
      Object.keys(rules).map((name) => `${type}.${name}`),
    );
    const missing = fieldsOf(roots).filter((field) => !named.includes(field));
    const strangers = named.filter((field) => !fieldsOf(roots).includes(field));
    // Missing: `field: root(ROLE, scope)`, with the least role that may use it and how its task is known.
    expect({ addToRootRules: missing, takeOutOfRootRules: strangers }).toEqual({
      addToRootRules: [],
      takeOutOfRootRules: [],
    });
  });

  it('has every other field, once', () => {
    const named = Object.entries(FIELD_ROLES).flatMap(([type, byRole]) =>
      Object.values(byRole).flatMap((fields) => fields.map((field) => `${type}.${field}`)),
    );
    const missing = fieldsOf(others).filter((field) => !named.includes(field));
    const strangers = named.filter((field) => !fieldsOf(others).includes(field));
    // Missing: under its type and the least role that may see it; a CLIENT sees no candidates, texts of others, reports.
    expect({ addToFieldRoles: missing, takeOutOfFieldRoles: strangers }).toEqual({
      addToFieldRoles: [],
      takeOutOfFieldRoles: [],
    });
    expect(named.length).toBe(new Set(named).size);
  });

  it('holds to a task whatever names one', () => {
    const argumentsOf = (scope: Scope) => {
      if (scope === 'all') return [];
      return 'argument' in scope
        ? [scope.argument]
        : 'id' in scope
          ? [scope.id]
          : 'definition' in scope
            ? [scope.definition]
            : [];
    };
    for (const type of roots) {
      for (const { name, args } of Object.values(type.getFields())) {
        const { scope } = ruleOf(type.name, name);
        for (const argument of argumentsOf(scope)) {
          expect(
            args.map((each) => each.name),
            `${type.name}.${name}: its scope names an argument that it lacks`,
          ).toContain(argument);
        }
        if (!args.some((argument) => argument.name === 'task')) continue;
        expect(
          argumentsOf(scope),
          `${type.name}.${name} takes a task: give it the scope { argument: 'task' }`,
        ).toContain('task');
      }
    }
  });

  it('is for an ADMIN of all tasks where it says nothing', () => {
    expect(ruleOf('Query', 'new')).toEqual({ role: 'ADMIN', scope: 'all' });
    expect(roleOf('Task', 'new')).toBe('ADMIN');
  });

  it('gives a role at least what the contract says', () => {
    // The contract's words stand in the descriptions of mutations: "… CLIENT."
    const said = Object.values(schema.getMutationType()!.getFields()).flatMap(({ name, description }) => {
      const role = ROLES.find((each) => new RegExp(`\\b${each}\\b`, 'u').test(description ?? ''));
      return role ? [[name, role]] : [];
    });
    expect(said.length).toBeGreaterThan(10);
    expect(said.map(([name]) => [name, ROOT_RULES['Mutation']![name!]!.role])).toEqual(said);
  });

  it('keeps candidates, texts and reports from a CLIENT', () => {
    const kept = ['Candidate.text', 'Example.text', 'DeadLetter.value', 'ModelVersion.report', 'Promotion.report'];
    const toClient = kept.filter((field) => {
      const [type, name] = field.split('.') as [string, string];
      return roleOf(type, name) === 'CLIENT';
    });
    expect(toClient).toEqual([]);
  });
});
