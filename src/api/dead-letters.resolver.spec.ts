import { expect, test } from 'vitest';
import { NO_LIMITS, type Principal } from '../access/principal.js';
import type { DeadLetters } from '../learning/stream-ports.js';
import type { TaskService } from '../learning/task-service.js';
import { DeadLettersResolver } from './dead-letters.resolver.js';

const task = (name: string, input: string) => ({ name, definition: { name, stream: { input } } });
const ROWS = [task('notes', 'shared'), task('guides', 'shared'), task('brands', 'brands-in')];

function resolver(byInput: boolean): DeadLettersResolver {
  const tasks = {
    get: (name: string) => Promise.resolve(ROWS.find((row) => row.name === name)),
    list: () => Promise.resolve(ROWS),
  } as unknown as TaskService;
  const letters: DeadLetters = {
    byInput,
    list: () => Promise.resolve({ letters: [], total: 3 }),
    replay: () => Promise.resolve(3),
    drop: () => Promise.resolve(3),
  };
  return new DeadLettersResolver(tasks, letters);
}

function engineer(tasks: string[] | null): Principal {
  return { name: 'key:one', role: 'ENGINEER', tasks, limits: NO_LIMITS, expiresAt: null };
}

test.each(['list', 'replay', 'drop'] as const)(
  '%s: letters of an input are for those who may use all its tasks',
  async (does) => {
    const refused = { code: 'FORBIDDEN', message: expect.stringContaining('stream.input') as string };
    await expect(resolver(true)[does](engineer(['notes']), 'notes', 10)).rejects.toMatchObject(refused);
    for (const tasks of [null, ['notes', 'guides']]) {
      await expect(resolver(true)[does](engineer(tasks), 'notes', 10)).resolves.toBeDefined();
    }
    await expect(resolver(true)[does](engineer(['brands']), 'brands', 10)).resolves.toBeDefined();
  },
);

test('where each task has its own letters, its own engineers see them', async () => {
  await expect(resolver(false).list(engineer(['notes']), 'notes', 10)).resolves.toEqual({ nodes: [], totalCount: 3 });
});
