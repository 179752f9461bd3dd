import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { TINY_MODEL } from '../../../test/fixtures/bundle.js';
import { runCommand } from '../../../test/fixtures/command.js';
import { taskFile } from '../../../test/fixtures/intake.js';

describe('task lint', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'fewloop-lint-'));
    vi.stubEnv('FEWLOOP_BASE_MODEL', TINY_MODEL);
  });
  afterAll(() => {
    vi.unstubAllEnvs();
    rmSync(folder, { recursive: true });
  });
  const lint = async (content: string, ...options: string[]) => {
    const path = join(folder, 'task.yaml');
    writeFileSync(path, content);
    const { code, out } = await runCommand(() => expect.unreachable(), ...options, 'task', 'lint', path);
    return { code, out: out.replaceAll(`${path}: `, '') };
  };

  it('says what it does not look at', async () => {
    const { code, out } = await lint(taskFile());
    expect([code, out]).toEqual([0, 'nothing to say without the model; priors of templates apply shows\n']);
  });

  it('names a field once', async () => {
    const message = 'a task file is a mapping with the keys name, kind, labels, templates';
    expect(await lint('[]')).toEqual({ code: 1, out: `error: definition: ${message}\n` });
    const { out } = await lint('[]', '--json');
    expect(JSON.parse(out)).toEqual([{ severity: 'error', field: 'definition', message }]);
  });
});
