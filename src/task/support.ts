/** Which kinds go with which methods in this version; the rest of the task file's vocabulary parses but is refused. */
import { badInput } from '../common/errors.js';
import type { Method, TaskDefinition, TaskKind } from './types.js';

const SUPPORTED: Record<TaskKind, Method[]> = {
  'single-label': ['pet', 'efl', 'embedding', 'fine-tune'],
  'multi-label': ['efl', 'embedding', 'fine-tune'],
  'sentence-pair': ['pet', 'efl', 'embedding', 'fine-tune'],
  'multiple-choice': ['pet'],
};

/** Throws BAD_INPUT, with the table of what goes together, where the service can neither train nor serve the task. */
export function requireSupported(definition: TaskDefinition): void {
  const methods = SUPPORTED[definition.kind];
  const refused = definition.method.find((method) => !methods.includes(method));
  if (refused !== undefined) {
    throw badInput('method', `${refused} does not go with ${definition.kind}. ${table()}`);
  }
  if (definition.kind === 'multiple-choice') refuseMixing(definition.learning);
  if ((definition.learning.adaptation?.auxiliary ?? 0) > 0 && !definition.method.includes('pet')) {
    throw badInput(
      'learning.adaptation.auxiliary',
      "is a loss of pet's, and method does not name pet; leave it out or 0",
    );
  }
}

function refuseMixing({ strategies, student }: TaskDefinition['learning']): void {
  for (const [field, named] of [
    ['learning.strategies', strategies],
    ['learning.student.strategies', student.strategies],
  ] as const) {
    const mixing = named.find((strategy) => strategy.includes('mixup'));
    if (mixing !== undefined) {
      throw badInput(field, `${mixing}: choices of two rows are not the same labels and cannot be mixed`);
    }
  }
}

/** Whether the base model can answer before anything was trained: only label words let it. */
export function hasZeroShot({ method }: Pick<TaskDefinition, 'method'>): boolean {
  return method.includes('pet');
}

function table(): string {
  const rows = Object.entries(SUPPORTED).map(([kind, methods]) => `${kind}: ${methods.join(', ')}`);
  return `Supported methods by kind: ${rows.join('; ')}`;
}
