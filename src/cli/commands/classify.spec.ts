import { Readable } from 'node:stream';
import { describe, expect, it, vi } from 'vitest';
import { runCommand } from '../../../test/fixtures/command.js';

describe('texts from standard input', () => {
  const piped = async (...pieces: Buffer[]) => {
    const asked: string[] = [];
    const stdin = vi.spyOn(process, 'stdin', 'get').mockReturnValue(Readable.from(pieces) as typeof process.stdin);
    const { code, err } = await runCommand(
      ({ variables }) => {
        const inputs = variables['inputs'] as { text: string }[];
        asked.push(...inputs.map(({ text }) => text));
        const prediction = { labels: ['正面'], confidence: 0.9, route: 'STUDENT' };
        return { data: { classify: inputs.map(() => prediction) } };
      },
      'classify',
      'reviews',
    );
    stdin.mockRestore();
    return { code, err, asked };
  };

  it('are its lines, whatever pieces they come in', async () => {
    const bytes = Buffer.from('\ufeff一\u2028二\u2029三\r四\u0085五\r\n\n  \n\ufeff六\n七');
    const { code, asked } = await piped(...Array.from(bytes, (_, i) => bytes.subarray(i, i + 1)));
    expect([code, asked]).toEqual([0, ['一\u2028二\u2029三\r四\u0085五', '\ufeff六', '七']]);
  });

  it('are told by their beginning where one is not answered', async () => {
    const stdin = vi
      .spyOn(process, 'stdin', 'get')
      .mockReturnValue(Readable.from([Buffer.from(`${'长'.repeat(9000)}\n短\n`)]) as typeof process.stdin);
    const errors = [0, 1].map((i) => ({ message: 'no', path: ['classify', i], extensions: { code: 'BAD_INPUT' } }));
    const { code, err } = await runCommand(() => ({ data: { classify: [null, null] }, errors }), 'classify', 'reviews');
    stdin.mockRestore();
    expect([code, err]).toEqual([1, `${'长'.repeat(60)}…: no\n短: no\n`]);
  });

  it('are refused where it is not UTF-8', async () => {
    const gbk = Buffer.from([0xba, 0xdc, 0xba, 0xc3, 0x0a]);
    const { code, err, asked } = await piped(gbk);
    expect([code, asked]).toEqual([1, []]);
    expect(err).toContain('fewloop: standard input is not UTF-8: save it as UTF-8');
  });
});
