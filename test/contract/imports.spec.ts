/** The import table is enforced: a forbidden import fails, and the tool reads our TypeScript at all. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const folders: string[] = [];

interface Cruise {
  modules: unknown[];
  summary: { violations: { rule: { name: string } }[] };
}

function cruise(files: Record<string, string>): Cruise {
  const folder = mkdtempSync(join(tmpdir(), 'fewloop-imports-'));
  folders.push(folder);
  for (const [name, content] of Object.entries({ 'migrations/none.ts': 'export {};', ...files })) {
    mkdirSync(join(folder, dirname(name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  writeFileSync(
    join(folder, 'tsconfig.json'),
    '{"compilerOptions":{"module":"nodenext","moduleResolution":"nodenext"}}',
  );
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  const depcruise = join(root, 'node_modules/dependency-cruiser/bin/dependency-cruiser.mjs');
  const config = join(root, '.dependency-cruiser.mjs');
  const args = [depcruise, '--config', config, '--output-type', 'json', 'src', 'migrations'];
  const result = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8', maxBuffer: 1e8 });
  if (result.stdout === '') throw new Error(result.stderr);
  return JSON.parse(result.stdout) as Cruise;
}

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

const rules = (result: Cruise) => result.summary.violations.map((violation) => violation.rule.name);

describe('import table', () => {
  it('accepts what the table allows', () => {
    const result = cruise({
      'src/learning/pool.ts': "import { rows } from '../storage/rows.js';\nexport const pool = rows;",
      'src/storage/rows.ts': 'export const rows = [];',
    });
    expect(rules(result)).toEqual([]);
    expect(result.modules.length).toBeGreaterThanOrEqual(3);
  });

  it.each([
    ['api-imports', 'src/api/a.ts', '../storage/b.js', 'src/storage/b.ts'],
    ['task-imports', 'src/task/a.ts', '../inference/b.js', 'src/inference/b.ts'],
    ['stream-imports', 'src/stream/a.ts', '../storage/b.js', 'src/storage/b.ts'],
    ['runtime-types-only', 'src/runtime/a.ts', '../inference/b.js', 'src/inference/b.ts'],
  ])('%s refuses %s importing %s', (rule, from, specifier, to) => {
    const result = cruise({
      [from]: `import { b } from '${specifier}';\nexport const a = b;`,
      [to]: 'export const b = 1;',
    });
    expect(rules(result)).toContain(rule);
  });

  it.each([
    ['onnxruntime-only-in-runtime', 'src/registry/a.ts', 'onnxruntime-node'],
    ['typeorm-only-in-storage', 'src/learning/a.ts', 'typeorm'],
    ['kafka-only-in-stream-kafka', 'src/stream/a.ts', 'kafkajs'],
    ['s3-only-in-its-store', 'src/registry/a.ts', '@aws-sdk/client-s3'],
    ['no-nest-in-pure-modules', 'src/inference/a.ts', '@nestjs/common'],
  ])('%s refuses it in %s', (rule, from, name) => {
    expect(rules(cruise({ [from]: `import * as lib from '${name}';\nexport const a = lib;` }))).toContain(rule);
  });

  it('refuses a cycle', () => {
    const result = cruise({
      'src/task/a.ts': "import { b } from './b.js';\nexport const a = () => b;",
      'src/task/b.ts': "import { a } from './a.js';\nexport const b = () => a;",
    });
    expect(rules(result)).toContain('no-cycles');
  });
});
