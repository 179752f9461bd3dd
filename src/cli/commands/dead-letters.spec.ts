import { expect, it } from 'vitest';
import { runCommand } from '../../../test/fixtures/command.js';

/** So many letters, of which a call takes `first`. `markers`: what Kafka counts beside them. */
function service(letters: number, markers = 0) {
  return ({ query, variables }: { query: string; variables: Record<string, unknown> }) => {
    if (query.startsWith('mutation')) {
      const count = Math.min(letters, variables['first'] as number);
      letters -= count;
      return { data: { count } };
    }
    const nodes = letters > 0 ? [{ source: 'texts:0:0' }] : [];
    return { data: { deadLetters: { totalCount: letters + markers, nodes } } };
  };
}

it.each([
  ['replay', 'replayed'],
  ['drop', 'dropped'],
])('%s says how many letters it left', async (command, done) => {
  const dlq = (letters: number, markers = 0, ...args: string[]) =>
    runCommand(service(letters, markers), ...args, 'dlq', command, 'notes', '--first', '3');
  const left = 'at most 5 are left: a call takes 3 (--first)\n';
  expect(await dlq(8)).toEqual({ code: 0, out: `3 ${done}\n`, err: left });
  const { out, err } = await dlq(8, 0, '--json');
  expect(JSON.parse(out)).toEqual({ [done]: 3 });
  expect(err).toBe(left);
  for (const letters of [2, 3]) {
    expect(await dlq(letters, 1)).toEqual({ code: 0, out: `${letters} ${done}\n`, err: '' });
  }
});
