import { expect, it } from 'vitest';
import { type Asked, runCommand } from '../../../test/fixtures/command.js';

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
