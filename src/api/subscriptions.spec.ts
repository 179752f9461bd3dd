import { Subject, throwError } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { FewloopError } from '../common/errors.js';
import { payloads } from './subscriptions.js';

describe('payloads', () => {
  it('keeps what comes before the first read, in order, and ends with the source', async () => {
    const source = new Subject<number>();
    const iterator = payloads('n', source);
    source.next(1);
    source.next(2);
    source.complete();
    const read: unknown[] = [];
    for await (const value of iterator) read.push(value);
    expect(read).toEqual([{ n: 1 }, { n: 2 }]);
  });

  it('wakes a waiting reader, by a value and by the end', async () => {
    const source = new Subject<number>();
    const iterator = payloads('n', source);
    const first = iterator.next();
    source.next(1);
    expect(await first).toEqual({ done: false, value: { n: 1 } });
    const second = iterator.next();
    await iterator.return!();
    expect(await second).toEqual({ done: true, value: undefined });
    expect(source.observed).toBe(false);
  });

  it('loses the oldest for a reader that falls behind', async () => {
    const source = new Subject<number>();
    const iterator = payloads('n', source);
    for (let i = 0; i < 1500; i++) source.next(i);
    expect((await iterator.next()).value).toEqual({ n: 500 });
  });

  it('fails with its source', async () => {
    const missing = new FewloopError('TASK_NOT_FOUND', 'there is no task x');
    const failed = payloads(
      'n',
      throwError(() => missing),
    ).next();
    await expect(failed).rejects.toBe(missing);
  });
});
