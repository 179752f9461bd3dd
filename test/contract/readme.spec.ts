/** The README's environment table is the configuration's own. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, it } from 'vitest';
import { environmentTable } from '../../src/config/environment.js';

it('shows the environment as the configuration describes it', () => {
  const readme = readFileSync(resolve(import.meta.dirname, '../../README.md'), 'utf8');
  const table = /<!-- environment -->\n([\s\S]*?)\n<!-- \/environment -->/u.exec(readme)?.[1];
  expect(table).toBe(environmentTable().trimEnd());
});
