import { afterEach, describe, expect, it, vi } from 'vitest';
import { longWork, onOutputError, progress } from './output.js';

const HIDDEN = '\u001b[?25l';
const SHOWN = '\u001b[?25h';
const WRAPPED = '\u001b[?7h';

afterEach(() => {
  vi.restoreAllMocks();
});

describe('a bar on a terminal', () => {
  const listeners = () => ['SIGINT', 'SIGTERM', 'exit'].map((name) => process.listenerCount(name));

  function onTerminal() {
    vi.spyOn(process, 'stderr', 'get').mockReturnValue(
      Object.assign(Object.create(process.stderr) as typeof process.stderr, { isTTY: true, columns: 80 }),
    );
    const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    return () => write.mock.calls.map(([text]) => String(text)).join('');
  }

  it.each(['SIGINT', 'SIGTERM'] as const)('gives the cursor back on %s, by which the process ends', (signal) => {
    const before = listeners();
    const output = onTerminal();
    const kill = vi.spyOn(process, 'kill').mockReturnValue(true);
    progress(10, 'rows').update(3);
    expect(output()).toContain(HIDDEN);
    expect(output()).not.toContain(SHOWN);
    process.emit(signal, signal);
    expect(output()).toContain(SHOWN);
    expect(output()).toContain(WRAPPED);
    expect(kill.mock.calls).toEqual([[process.pid, signal]]);
    // Nothing of ours is left that would catch it.
    expect(listeners()).toEqual(before);
  });

  it('leaves nothing behind when it is done', () => {
    const before = listeners();
    const output = onTerminal();
    progress(10, 'rows').stop();
    expect(output()).toContain(SHOWN);
    expect(listeners()).toEqual(before);
  });

  it('gives the cursor back where nobody reads the output any more', () => {
    const output = onTerminal();
    const exit = vi.spyOn(process, 'exit').mockImplementation((code) => {
      process.emit('exit', Number(code));
      return undefined as never;
    });
    progress(10, 'rows');
    onOutputError(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
    expect(exit).toHaveBeenCalledWith(141);
    expect(output()).toContain(SHOWN);
  });
});

it('another failure of the output is one', () => {
  expect(() => onOutputError(Object.assign(new Error('no space'), { code: 'ENOSPC' }))).toThrow('no space');
});

it('says of long work alone that it is still waiting', async () => {
  vi.useFakeTimers();
  const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  const { promise, resolve } = Promise.withResolvers<string>();
  const waiting = longWork(promise, 'still waiting');
  expect(await longWork(Promise.resolve('at once'), 'never said')).toBe('at once');
  vi.advanceTimersByTime(60_000);
  expect(write.mock.calls).toEqual([['still waiting\n']]);
  resolve('late');
  expect(await waiting).toBe('late');
  vi.useRealTimers();
});
