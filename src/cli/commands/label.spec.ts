import { PassThrough } from 'node:stream';
import { describe, expect, it, vi } from 'vitest';
import { refused, runCommand } from '../../../test/fixtures/command.js';
import { chosenBy, namedBy, onKeys } from './label.js';

const few = ['sport', 'Sports', '财经', '财经/股票', 'IT', 'it'];
const many = Array.from({ length: 119 }, (_, i) => `label ${i}`);

describe('keys', () => {
  it('are the task’s labels in its order', () => {
    expect(onKeys(few, [{ label: 'IT', probability: 0.9 }])).toEqual(few);
  });

  it('are the most probable of too many, then in the task’s order', () => {
    const options = onKeys(many, [
      { label: 'label 118', probability: 0.6 },
      { label: 'label 50', probability: 0.3 },
    ]);
    expect(options).toHaveLength(33);
    expect(options.slice(0, 4)).toEqual(['label 118', 'label 50', 'label 0', 'label 1']);
  });
});

it('a name is the label’s own, whatever its case, or its beginning', () => {
  expect(namedBy('it', few)).toEqual(['it']);
  expect(namedBy('SPORT', few)).toEqual(['sport']);
  expect(namedBy('财经', few)).toEqual(['财经']);
  expect(namedBy('财经/', few)).toEqual(['财经/股票']);
  expect(namedBy('s', few)).toEqual(['sport', 'Sports']);
  expect(namedBy('天气', few)).toEqual([]);
  expect(namedBy('', many)).toEqual(many);
});

describe('what is pressed', () => {
  const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  const output = () => said.mock.calls.map(([text]) => String(text)).join('');
  const labels = { options: many.slice(0, 33), all: many };
  const line = { byLine: true, next: () => Promise.resolve(null), close: () => undefined };
  const typing = (text: string) => {
    const keys = Array.from(text);
    return { ...line, byLine: false, next: () => Promise.resolve(keys.shift() ?? null) };
  };

  it('is keys, names that have none, or both', async () => {
    expect(await chosenBy('1', labels, line)).toEqual(['label 0']);
    expect(await chosenBy('1z 2 /label 118 /label 90', labels, line)).toEqual(
      expect.arrayContaining(['label 0', 'label 32', 'label 1', 'label 118', 'label 90']),
    );
    expect(await chosenBy('/财经/', { options: few, all: few }, line)).toEqual(['财经/股票']);
  });

  it('on a terminal is a name that is typed', async () => {
    expect(await chosenBy('/', labels, typing('label 118\r'))).toEqual(['label 118']);
    expect(await chosenBy('/', { options: few, all: few }, typing('IT\r'))).toEqual(['IT']);
  });

  it('lists all that begin so, and then is no answer', async () => {
    said.mockClear();
    expect(await chosenBy('1 /label 11', labels, line)).toEqual(['label 0', 'label 11']);
    expect(await chosenBy('1 /label 3 /label', labels, line)).toBeNull();
    expect(output()).toContain(`which? ${many.join(', ')}`);
    expect(await chosenBy('/', labels, typing('x\r'))).toBeNull();
    expect(output()).toContain('none begins with x');
  });
});

it('gives the terminal back where no question can be had', async () => {
  const terminal = Object.assign(new PassThrough(), { isTTY: true, isRaw: false, setRawMode });
  function setRawMode(raw: boolean) {
    terminal.isRaw = raw;
  }
  const stdin = vi.spyOn(process, 'stdin', 'get').mockReturnValue(terminal as unknown as typeof process.stdin);
  const task = { data: { task: { kind: 'SINGLE_LABEL', labels: few } } };
  const { code, err } = await runCommand(
    ({ query }) => (query.includes('leaseQuestions') ? refused('NO_ACTIVE_MODEL', 'no model yet') : task),
    'label',
    'news',
  );
  stdin.mockRestore();
  expect([code, err]).toEqual([1, 'fewloop: no model yet\n']);
  expect([terminal.isRaw, terminal.readableFlowing]).toEqual([false, null]);
});
