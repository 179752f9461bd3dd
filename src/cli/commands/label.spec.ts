import { PassThrough, Readable } from 'node:stream';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { type Asked, refused, runCommand } from '../../../test/fixtures/command.js';
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
  afterAll(() => said.mockRestore());
  const labels = { options: many.slice(0, 33), all: many };
  const line = { byLine: true, line: 1, next: () => Promise.resolve(null), close: () => undefined };
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
    expect(await chosenBy('1 /label 11', labels, line)).toEqual(['label 0', 'label 11']);
    expect(await chosenBy('1 /label 3 /label', labels, line)).toEqual({
      kind: 'none',
      why: `which? ${many.join(', ')}`,
    });
    expect(await chosenBy('/', labels, typing('x\r'))).toEqual({ kind: 'none', why: 'none begins with x' });
  });

  it('on a terminal is nothing where the key has no label, in a line it is no answer', async () => {
    const labels = { options: few, all: few };
    expect(await chosenBy('9', labels, typing(''))).toEqual([]);
    expect(await chosenBy('19 0', labels, line)).toEqual({
      kind: 'none',
      why: '9 is the key of no label; 0 is the key of no label',
    });
  });
});

const leased = (kind: string, texts: string[]) => {
  const asked: Asked[] = [];
  const rest = { textPair: null, choices: null, duplicates: 0, reason: 'STRATEGY', presentLabels: null };
  const questions = texts.map((text) => ({
    ...rest,
    id: text,
    text,
    prediction: { confidence: 0.5, disagreement: null, distribution: [] },
  }));
  const answer = (one: Asked) => {
    asked.push(one);
    if (one.query.includes('leaseQuestions'))
      return { data: { leaseQuestions: { totalCount: questions.length, questions } } };
    if (one.query.includes('task(')) return { data: { task: { kind, labels: ['书籍', '平板', '水果'] } } };
    return { data: { label: { id: '1' } } };
  };
  const answered = () => asked.flatMap(({ variables: { labels } }) => (labels ? [labels] : []));
  return { answer, answered, released: () => asked.some(({ query }) => query.includes('releaseQuestions')) };
};

describe('a terminal', () => {
  afterEach(() => void vi.restoreAllMocks());
  const onTerminal = () => {
    const terminal = Object.assign(new PassThrough(), { isTTY: true, isRaw: false, setRawMode });
    function setRawMode(raw: boolean) {
      terminal.isRaw = raw;
    }
    vi.spyOn(process, 'stdin', 'get').mockReturnValue(terminal as unknown as typeof process.stdin);
    return { terminal, kill: vi.spyOn(process, 'kill').mockReturnValue(true) };
  };
  /** Once a key is waited for the `nth` time. */
  const waitsForKey = (nth: number) =>
    vi.waitFor(() => {
      const said = vi.mocked(process.stderr.write).mock.calls.map(([text]) => String(text));
      expect(said.filter((text) => text.includes('quit'))).toHaveLength(nth);
    });

  it('is given back where no question can be had', async () => {
    const { terminal } = onTerminal();
    const task = { data: { task: { kind: 'SINGLE_LABEL', labels: few } } };
    const { code, err } = await runCommand(
      ({ query }) => (query.includes('leaseQuestions') ? refused('NO_ACTIVE_MODEL', 'no model yet') : task),
      'label',
      'news',
    );
    expect([code, err]).toEqual([1, 'fewloop: no model yet\n']);
    expect([terminal.isRaw, terminal.readableFlowing]).toEqual([false, null]);
  });

  it('ends by Ctrl-C while the service is asked', async () => {
    const { terminal, kill } = onTerminal();
    const service = leased('SINGLE_LABEL', ['一']);
    const rawAtKill: boolean[] = [];
    kill.mockImplementation(() => {
      rawAtKill.push(terminal.isRaw);
      return true;
    });
    const ran = runCommand(
      (asked) => {
        if (!asked.query.includes('label(')) return service.answer(asked);
        terminal.write('2\u0003');
        return refused('INTERNAL');
      },
      'label',
      'topics',
    );
    await waitsForKey(1);
    terminal.write('1');
    expect((await ran).code).toBe(1);
    expect([kill.mock.calls, rawAtKill]).toEqual([[[process.pid, 'SIGINT']], [false]]);
  });

  it('has a key answer the question that is shown alone, and Ctrl-C end it there', async () => {
    const { terminal, kill } = onTerminal();
    const service = leased('SINGLE_LABEL', ['一', '二', '三']);
    const ran = runCommand(
      (asked) => {
        if (asked.query.includes('label(')) terminal.write('2');
        return service.answer(asked);
      },
      'label',
      'topics',
    );
    for (const [nth, key] of ['1', '3', '1\u0003'].entries()) {
      await waitsForKey(nth + 1);
      terminal.write(key);
    }
    expect(await ran).toMatchObject({ code: 0, out: '2 answered, 0 skipped\n' });
    expect([service.answered(), service.released()]).toEqual([[['书籍'], ['水果']], true]);
    expect(kill).not.toHaveBeenCalled();
    expect([terminal.isRaw, terminal.isPaused(), terminal.listenerCount('data')]).toEqual([false, true, 0]);
  });
});

describe('answers from a pipe', () => {
  const piped = async (lines: string, kind: string) => {
    const service = leased(kind, ['一', '二', '三', '四']);
    const stdin = vi.spyOn(process, 'stdin', 'get').mockReturnValue(Readable.from([lines]) as typeof process.stdin);
    const { code, out, err } = await runCommand(service.answer, '--json', 'label', 'topics');
    stdin.mockRestore();
    return { code, out, err, answered: service.answered(), released: service.released() };
  };

  it.each([
    ['9', '9 is the key of no label'],
    ['foo', 'f is the key of no label; o is the key of no label'],
    ['1 2', 'a text has one label, and it names 2'],
    ['', 'a text has one label, and it names none'],
    ['/', 'which? 书籍, 平板, 水果'],
    ['/天气', 'none begins with 天气'],
  ])('end at the line that is none: %s', async (bad, why) => {
    const { code, out, answered, released } = await piped(`1\n/平\n${bad}\n/水\n`, 'SINGLE_LABEL');
    expect([code, answered, released]).toEqual([1, [['书籍'], ['平板']], true]);
    const message = expect.stringContaining(`line 3 is no answer: ${why}; the 2 before it were taken`);
    expect(JSON.parse(out)).toEqual({ error: { code: 'BAD_INPUT', message } });
  });

  it('are none of several labels where one key of them is unknown; a label is named twice, and is there', async () => {
    const { code, out, answered } = await piped('12\n11 /书\n\n3foo\n1\n', 'MULTI_LABEL');
    expect([code, answered]).toEqual([1, [['书籍', '平板'], ['书籍'], []]]);
    expect(out).toContain('line 4 is no answer: f is the key of no label');
  });
});
