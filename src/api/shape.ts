/**
 * The shape that a document may have, looked at before it is validated: some of GraphQL's own rules take time by the
 * square of the fields, and by powers of two where fragments spread each other. Everything counts as often as it would
 * be answered: through fragments, inline fragments, aliases and `__typename` too.
 */
import {
  type DocumentNode,
  type FragmentDefinitionNode,
  GraphQLError,
  Kind,
  OperationTypeNode,
  type SelectionSetNode,
} from 'graphql';

const MOST = {
  /** Levels of fields, which fragments do not add to. */
  depth: 8,
  rootFields: 20,
  fields: 1_000,
  /** Of a subscription, which answers them at every event. */
  eventFields: 100,
  aliases: 100,
  directives: 50,
  /** Selections as they are written, and how deep in each other. */
  written: 5_000,
  nesting: 50,
  definitions: 50,
};

/** Roots of introspection. */
export const INTROSPECTION: ReadonlySet<string> = new Set(['__schema', '__type']);

interface Shape {
  depth: number;
  fields: number;
  aliases: number;
  directives: number;
}

/** Throws QUERY_TOO_COMPLEX. Linear in the document. */
export function checkShape(document: DocumentNode): void {
  atMost('definitions', document.definitions.length);
  const fragments = new Map<string, FragmentDefinitionNode>();
  for (const definition of document.definitions) {
    if (definition.kind === Kind.FRAGMENT_DEFINITION) fragments.set(definition.name.value, definition);
  }
  const counter = new Counter(fragments);
  let directives = 0;
  for (const definition of document.definitions) {
    directives += 'directives' in definition ? (definition.directives?.length ?? 0) : 0;
    if (definition.kind === Kind.FRAGMENT_DEFINITION) counter.ofFragment(definition.name.value);
    if (definition.kind !== Kind.OPERATION_DEFINITION) continue;
    for (const variable of definition.variableDefinitions ?? []) directives += variable.directives?.length ?? 0;
    const shape = counter.of(definition.selectionSet, 1);
    atMost('rootFields', counter.rootFields(definition.selectionSet, 1));
    atMost('depth', shape.depth);
    atMost('fields', shape.fields);
    if (definition.operation === OperationTypeNode.SUBSCRIPTION) atMost('eventFields', shape.fields);
    atMost('aliases', shape.aliases);
    atMost('directives', shape.directives + directives);
  }
}

class Counter {
  private readonly known = new Map<string, Shape>();
  private readonly knownRoots = new Map<string, number>();
  private written = 0;

  constructor(private readonly fragments: Map<string, FragmentDefinitionNode>) {}

  of(selections: SelectionSetNode, nesting: number): Shape {
    atMost('nesting', nesting);
    const sum: Shape = { depth: 0, fields: 0, aliases: 0, directives: 0 };
    for (const selection of selections.selections) {
      atMost('written', ++this.written);
      sum.directives += selection.directives?.length ?? 0;
      const below = this.below(selection, nesting + 1);
      const isField = selection.kind === Kind.FIELD;
      sum.depth = Math.max(sum.depth, below.depth + (isField ? 1 : 0));
      sum.fields += below.fields + (isField ? 1 : 0);
      sum.aliases += below.aliases + (isField && selection.alias ? 1 : 0);
      sum.directives += below.directives;
    }
    return sum;
  }

  /** What a fragment counts each time that it is spread; nothing inside itself, which validation refuses. */
  ofFragment(name: string, nesting = 1): Shape {
    const before = this.known.get(name);
    if (before) return before;
    this.known.set(name, NOTHING);
    const fragment = this.fragments.get(name);
    const shape = fragment ? this.of(fragment.selectionSet, nesting) : NOTHING;
    this.known.set(name, shape);
    return shape;
  }

  rootFields(selections: SelectionSetNode, nesting: number): number {
    let sum = 0;
    for (const selection of selections.selections) {
      if (selection.kind === Kind.FIELD) sum += 1;
      else if (selection.kind === Kind.INLINE_FRAGMENT) sum += this.rootFields(selection.selectionSet, nesting + 1);
      else sum += this.rootsOfFragment(selection.name.value, nesting + 1);
    }
    return sum;
  }

  private rootsOfFragment(name: string, nesting: number): number {
    const before = this.knownRoots.get(name);
    if (before !== undefined) return before;
    this.knownRoots.set(name, 0);
    const fragment = this.fragments.get(name);
    const count = fragment ? this.rootFields(fragment.selectionSet, nesting) : 0;
    this.knownRoots.set(name, count);
    return count;
  }

  private below(selection: SelectionSetNode['selections'][number], nesting: number): Shape {
    if (selection.kind === Kind.FRAGMENT_SPREAD) return this.ofFragment(selection.name.value, nesting);
    // GraphQL has a rule of its own for how deep introspection goes.
    const shape = selection.selectionSet ? this.of(selection.selectionSet, nesting) : NOTHING;
    const isIntrospection = selection.kind === Kind.FIELD && INTROSPECTION.has(selection.name.value);
    return isIntrospection ? { ...shape, depth: 0 } : shape;
  }
}

const NOTHING: Shape = { depth: 0, fields: 0, aliases: 0, directives: 0 };

function atMost(what: keyof typeof MOST, count: number): void {
  if (count <= MOST[what]) return;
  throw new GraphQLError(`the query has too many: ${count} ${what}; at most ${MOST[what]} are answered`, {
    extensions: { code: 'QUERY_TOO_COMPLEX' },
  });
}
