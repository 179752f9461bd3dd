import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Asked, refused, runCommand } from '../../../test/fixtures/command.js';

const DIGEST = 'a'.repeat(64);

it('a text is forgotten by one name', async () => {
  const asked: Asked[] = [];
  const forget = (...names: string[]) =>
    runCommand(
      (one) => {
        asked.push(one);
        const counts = { candidates: 1, examples: 0, streamItems: 0, runRows: 0, pendingFolders: 0 };
        return { data: { forget: { digest: DIGEST, ...counts } } };
      },
      'forget',
      'reviews',
      ...names,
    );
  expect(await forget('--digest', DIGEST)).toMatchObject({ code: 0, out: expect.stringContaining('1 candidates') });
  expect(await forget('--text', '很好', '--digest', DIGEST)).toMatchObject({ code: 2, out: '' });
  expect(await forget()).toMatchObject({ code: 2, out: '' });
  expect(asked.map(({ variables }) => variables)).toEqual([{ task: 'reviews', digest: DIGEST }]);
});

describe('an export for machines', () => {
  const TASK = { kind: 'SINGLE_LABEL', labels: ['positive'], examples: { train: 2, dev: 0, test: 0 } };
  const ROW = { text: '很好', labels: ['positive'], split: 'TRAIN' };
  /** Of a service that has two pages of a row each, and may fail at the second. */
  const run = (fails: boolean, ...options: string[]) =>
    runCommand(
      ({ query, variables }) => {
        if (!query.includes('exportExamples')) return { data: { task: TASK } };
        const first = variables['after'] === null;
        if (!first && fails) return refused('INTERNAL', 'no database');
        return { data: { page: { nodes: [ROW], pageInfo: { hasNextPage: first, endCursor: '1' } } } };
      },
      '--json',
      'export',
      'reviews',
      '--format',
      'jsonl',
      ...options,
    );
  const rowsOf = (text: string) =>
    text
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { text: string }).text);

  it('has nothing but rows on standard output, a failure neither', async () => {
    const whole = await run(false);
    expect([whole.code, rowsOf(whole.out)]).toEqual([0, ['很好', '很好']]);
    const cut = await run(true);
    expect([cut.code, rowsOf(cut.out), cut.err]).toEqual([1, ['很好'], 'fewloop: no database\n']);
  });

  it('says where a file is and what is in it, or why there is none', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'fewloop-files-'));
    const out = join(folder, 'examples.jsonl');
    try {
      const { code, out: failed } = await run(true, '--out', out);
      expect([code, JSON.parse(failed)]).toEqual([1, { error: { code: 'INTERNAL', message: 'no database' } }]);
      const whole = await run(false, '--out', out);
      expect([whole.code, JSON.parse(whole.out)]).toEqual([0, { out, examples: 2 }]);
      expect(rowsOf(readFileSync(out, 'utf8'))).toHaveLength(2);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it.each([
    ['.', 'it is a folder'],
    ['none/examples', 'ENOENT'],
    ['file/examples', 'ENOTDIR'],
  ])('is not begun where it cannot be written: %s', async (name, why) => {
    const folder = mkdtempSync(join(tmpdir(), 'fewloop-files-'));
    writeFileSync(join(folder, 'file'), '');
    const out = join(folder, name);
    for (const format of ['jsonl', 'parquet']) {
      const { code, err } = await run(true, '--format', format, '--out', out);
      expect([code, err]).toEqual([1, expect.stringContaining(`fewloop: cannot write ${out}: ${why}`)]);
      expect(err.trimEnd().split('\n')).toHaveLength(1);
    }
    expect(readdirSync(folder)).toEqual(['file']);
    rmSync(folder, { recursive: true });
  });
});
