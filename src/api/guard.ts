/**
 * Access control around every root field of the schema: nothing is resolved before it is known who asks, that the role
 * suffices for the field and all that is selected below it, through fragments too, and that the task is one of theirs.
 */
import {
  defaultFieldResolver,
  type FieldNode,
  type GraphQLField,
  type GraphQLNamedType,
  type GraphQLOutputType,
  type GraphQLResolveInfo,
  type GraphQLSchema,
  Kind,
  type SelectionSetNode,
} from 'graphql';
import type { Authenticator } from '../access/authenticator.js';
import {
  isAtLeast,
  LOCAL,
  mayUse,
  type Principal,
  refusedTask,
  type Role,
  ROLES,
  unauthenticated,
} from '../access/principal.js';
import type { TaskOf } from '../access/task-of.js';
import type { Usage } from '../access/usage.js';
import { FewloopError } from '../common/errors.js';
import { parseTask } from '../task/definition.js';
import { roleOf, ruleOf, type Scope } from './field-roles.js';

export interface Access {
  authenticator: Authenticator;
  taskOf: TaskOf;
  usage: Usage;
}

export interface AccessContext {
  principal?: Principal;
}

type Args = Record<string, unknown>;
type Iterator = AsyncIterableIterator<Record<string, unknown>>;

/** How often a subscription's right to go on is looked at. */
const ALIVE_MS = 1_000;

export function guardSchema(schema: GraphQLSchema, access: Access): GraphQLSchema {
  for (const type of [schema.getQueryType(), schema.getMutationType()]) {
    for (const field of Object.values(type?.getFields() ?? {})) {
      const resolve = field.resolve ?? defaultFieldResolver;
      field.resolve = async (source, args: Args, context: AccessContext, info) => {
        const principal = await admit(context, args, info, access);
        const value: unknown = await resolve(source, args, context, info);
        const shows = resultFilter(principal, info);
        return shows && Array.isArray(value) ? value.filter(shows) : value;
      };
    }
  }
  for (const field of Object.values(schema.getSubscriptionType()?.getFields() ?? {})) {
    const subscribe = field.subscribe!;
    field.subscribe = async (source, args: Args, context: AccessContext, info) => {
      const principal = await admit(context, args, info, access);
      if (principal === LOCAL) return subscribe(source, args, context, info);
      await access.usage.takeRequest(principal);
      const close = await access.usage.openSubscription(principal);
      try {
        const events = (await subscribe(source, args, context, info)) as Iterator;
        return whileAlive(events, { principal, info, access, close });
      } catch (error) {
        close();
        throw error;
      }
    };
  }
  return schema;
}

async function admit(context: AccessContext, args: Args, info: GraphQLResolveInfo, access: Access): Promise<Principal> {
  const { principal } = context;
  if (principal === LOCAL) return principal;
  if (!principal) throw unauthenticated('an access key is needed');
  if (!access.authenticator.isAlive(principal)) throw unauthenticated('the key or token is no longer valid');
  const { field, role } = neededBelow(info);
  if (!isAtLeast(principal.role, role)) {
    throw new FewloopError('FORBIDDEN', `${field} is for the role ${role}; ${principal.name} is ${principal.role}`);
  }
  if (principal.tasks !== null) await checkScope(principal, args, info, access.taskOf);
  return principal;
}

async function checkScope(principal: Principal, args: Args, info: GraphQLResolveInfo, taskOf: TaskOf): Promise<void> {
  const { scope } = ruleOf(info.parentType.name, info.fieldName);
  const task = await namedTask(scope, args, taskOf);
  if (task === null || (task !== undefined && mayUse(principal, task))) return;
  // What was named by itself is no news to who named it; where an id leads to is.
  if (task !== undefined && typeof scope === 'object' && !('id' in scope)) throw refusedTask(principal, task);
  throw new FewloopError('FORBIDDEN', `${info.fieldName}: not of the tasks that ${principal.name} may use`);
}

/** Null: none is named, and the results are looked at; undefined: one that is not known, or all of them. */
async function namedTask(scope: Scope, args: Args, taskOf: TaskOf): Promise<string | null | undefined> {
  if (scope === 'all') return undefined;
  if ('id' in scope) return taskOf.find(scope.kind, String(args[scope.id]));
  if ('definition' in scope) return parseTask(String(args[scope.definition])).name;
  if ('argument' in scope) {
    const value = args[scope.argument];
    if (typeof value === 'string') return value;
    return scope.results === undefined ? undefined : null;
  }
  return null;
}

function resultFilter(
  principal: Principal,
  { parentType, fieldName }: GraphQLResolveInfo,
): ((value: unknown) => boolean) | undefined {
  if (principal.tasks === null) return undefined;
  const { scope } = ruleOf(parentType.name, fieldName);
  if (typeof scope === 'string' || !('results' in scope) || scope.results === undefined) return undefined;
  const name = scope.results;
  return (value) => mayUse(principal, String((value as Record<string, unknown> | null)?.[name]));
}

interface Needed {
  role: Role;
  /** The first that needs it. */
  field: string;
}

const known = new WeakMap<FieldNode, Needed>();

/** Mercurius keeps a document that it has parsed, and with it its nodes. */
function neededBelow(info: GraphQLResolveInfo): Needed {
  return info.fieldNodes.map((node) => neededBy(node, info)).reduce(higher);
}

function neededBy(node: FieldNode, info: GraphQLResolveInfo): Needed {
  const before = known.get(node);
  if (before) return before;
  const { name } = info.parentType;
  const needed = higher(
    { role: roleOf(name, info.fieldName), field: `${name}.${info.fieldName}` },
    neededIn(node.selectionSet, namedType(info.returnType), info, new Map()),
  );
  known.set(node, needed);
  return needed;
}

const NOTHING: Needed = { role: 'CLIENT', field: '' };

/** `seen`: a fragment is read once, however often it is spread. */
function neededIn(
  selections: SelectionSetNode | undefined,
  type: GraphQLNamedType,
  info: GraphQLResolveInfo,
  seen: Map<string, Needed>,
): Needed {
  if (!selections) return NOTHING;
  let most = NOTHING;
  for (const selection of selections.selections) {
    most = higher(most, neededBySelection(selection));
  }
  return most;

  function neededBySelection(selection: SelectionSetNode['selections'][number]): Needed {
    if (selection.kind === Kind.FIELD) return neededByField(selection);
    if (selection.kind === Kind.INLINE_FRAGMENT) {
      return neededIn(selection.selectionSet, typed(selection.typeCondition?.name.value), info, seen);
    }
    const name = selection.name.value;
    const before = seen.get(name);
    if (before) return before;
    seen.set(name, NOTHING);
    const fragment = info.fragments[name];
    const needed = fragment
      ? neededIn(fragment.selectionSet, typed(fragment.typeCondition.name.value), info, seen)
      : NOTHING;
    seen.set(name, needed);
    return needed;
  }

  function neededByField(node: FieldNode): Needed {
    const name = node.name.value;
    if (name === '__typename') return NOTHING;
    const field =
      'getFields' in type ? (type.getFields()[name] as GraphQLField<unknown, unknown> | undefined) : undefined;
    // Validation has refused what the type does not have.
    if (!field) return { role: 'ADMIN', field: `${type.name}.${name}` };
    const own = { role: roleOf(type.name, name), field: `${type.name}.${name}` };
    return higher(own, neededIn(node.selectionSet, namedType(field.type), info, seen));
  }

  function typed(name: string | undefined): GraphQLNamedType {
    return (name === undefined ? undefined : info.schema.getType(name)) ?? type;
  }
}

/** The library's own asks whether a type is of its classes, and there may be two copies of it. */
function namedType(type: GraphQLOutputType): GraphQLNamedType {
  let named: GraphQLOutputType = type;
  while ('ofType' in named) named = named.ofType as GraphQLOutputType;
  return named;
}

function higher(one: Needed, other: Needed): Needed {
  return ROLES.indexOf(other.role) > ROLES.indexOf(one.role) ? other : one;
}

/** Events until the key or token ends; those of others' tasks are left out. */
function whileAlive(
  events: Iterator,
  {
    principal,
    info,
    access,
    close,
  }: { principal: Principal; info: GraphQLResolveInfo; access: Access; close: () => void },
): Iterator {
  let failure: Error | undefined;
  const shows = resultFilter(principal, info);
  let finished = false;
  const finish = () => {
    clearInterval(timer);
    if (!finished) close();
    finished = true;
  };
  const timer = setInterval(() => {
    if (access.authenticator.isAlive(principal)) return;
    failure = unauthenticated('the key or token is no longer valid');
    void events.return?.();
  }, ALIVE_MS).unref();
  return {
    async next() {
      for (;;) {
        const result = await events.next().catch((error: unknown) => {
          finish();
          throw error;
        });
        if (result.done) finish();
        if (failure) throw failure;
        if (result.done || !shows || shows(result.value[info.fieldName])) return result;
      }
    },
    async return() {
      finish();
      await events.return?.();
      return { done: true, value: undefined };
    },
    async throw(error: unknown) {
      finish();
      await events.return?.();
      throw error;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
