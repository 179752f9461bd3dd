import { expect, it } from 'vitest';
import { knownKeys, taskJsonSchema } from './schema.js';
import { publishedSchema } from '../../test/fixtures/published-schema.js';

const FILE = 'docs/task-file.schema.json';

it('docs/task-file.schema.json is current', () => {
  const current = taskJsonSchema();
  expect(
    publishedSchema(FILE, current),
    'run UPDATE_SCHEMA=1 npx vitest run src/task/schema.spec.ts and prettier',
  ).toEqual(current);
});

it('knows the keys at every depth', () => {
  expect(knownKeys([])).toContain('maxLength');
  expect(knownKeys(['labels', 0])).toEqual(['name', 'words', 'description', 'was']);
  expect(knownKeys(['learning', 'trigger', 'drift'])).toEqual(['falseAlarmsPerYear', 'minEffect']);
  expect(knownKeys(['nowhere', 'at', 'all'])).toEqual([]);
});
