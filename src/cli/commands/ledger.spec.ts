import { describe, expect, it } from 'vitest';
import { type Asked, runCommand } from '../../../test/fixtures/command.js';

/** Of a service that finds this. */
const verify = (finding: object, ...options: string[]) =>
  runCommand(() => ({ data: { verifyLedger: finding } }), ...options, 'ledger', 'verify', '--hash', 'abc');

const HOLDS = { entries: 3, brokenAt: null, lastHash: 'abc', contains: true };

describe('fewloop ledger verify', () => {
  it.each([
    ['broken', { ...HOLDS, entries: 1, brokenAt: '2', contains: null }, 'entry 2 is not what was written'],
    ['cut off', { ...HOLDS, contains: false }, 'abc is not in the chain'],
  ])(
    'fails on a chain that is %s, with --json too, where the finding is all that is printed',
    async (_, finding, why) => {
      const plain = await verify(finding);
      expect([plain.out, plain.code]).toEqual(['', 1]);
      expect(plain.err).toContain(`fewloop: ${why}`);
      const { out, err, code } = await verify(finding, '--json');
      expect([JSON.parse(out), code]).toEqual([finding, 1]);
      expect(err).toContain(why);
    },
  );

  it('says that a whole one holds', async () => {
    expect(await verify(HOLDS)).toMatchObject({ code: 0, out: '3 entries hold; the last hash is abc\n' });
    const { code, out } = await verify(HOLDS, '--json');
    expect([JSON.parse(out), code]).toEqual([HOLDS, 0]);
  });
});

describe('fewloop ledger list', () => {
  /** Of a service whose ledger has so many entries of the task, and which answers 500 at most. */
  async function list(entries: number, ...options: string[]) {
    const pages: number[] = [];
    const answer = ({ variables }: Asked) => {
      const { first, after = entries + 1 } = variables as { first: number; after?: string };
      if (first > 500) return { data: null, errors: [{ message: 'at most 500' }] };
      pages.push(first);
      const seqs = Array.from({ length: Math.min(first, Number(after) - 1) }, (_, i) => Number(after) - 1 - i);
      return { data: { ledger: seqs.map((seq) => ({ seq: String(seq) })) } };
    };
    const { out } = await runCommand(answer, '--json', 'ledger', 'list', 'reviews', ...options);
    return { pages, seqs: (JSON.parse(out) as { seq: string }[]).map(({ seq }) => Number(seq)) };
  }

  const down = (from: number, to: number) => Array.from({ length: from - to + 1 }, (_, i) => from - i);

  it('has the newest, or all, page by page', async () => {
    expect(await list(1200)).toEqual({ pages: [50], seqs: down(1200, 1151) });
    expect(await list(1200, '--first', '700')).toEqual({ pages: [500, 200], seqs: down(1200, 501) });
    expect(await list(1200, '--all')).toEqual({ pages: [500, 500, 500], seqs: down(1200, 1) });
    expect(await list(1000, '--all')).toEqual({ pages: [500, 500, 500], seqs: down(1000, 1) });
  });
});
