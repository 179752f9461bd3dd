import { expect, it } from 'vitest';
import { refused, runCommand } from '../../test/fixtures/command.js';

it('a failure is one line of JSON, after others too', async () => {
  const texts = Array.from({ length: 100 }, (_, i) => `第${i}条`);
  let requests = 0;
  const { code, out } = await runCommand(
    ({ variables }) => {
      if (requests++ > 0) return refused('INTERNAL', 'no host');
      const inputs = variables['inputs'] as object[];
      return { data: { classify: inputs.map(() => ({ labels: ['positive'] })) } };
    },
    '--json',
    'classify',
    'reviews',
    ...texts,
  );
  const lines = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as object);
  expect(lines.length).toBeGreaterThan(2);
  expect(lines.at(-1)).toEqual({ error: { code: 'INTERNAL', message: 'no host' } });
  expect(lines.slice(0, -1)).toEqual(texts.slice(0, lines.length - 1).map((text) => ({ text, labels: ['positive'] })));
  expect(code).toBe(1);
});
