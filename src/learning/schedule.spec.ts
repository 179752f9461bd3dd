import { describe, expect, it } from 'vitest';

import { dueSince } from './schedule.js';

const at = (time: string) => new Date(`2026-03-${time}Z`);

describe('a schedule', () => {
  it('is due at its time, and once', () => {
    expect(dueSince('0 3 * * *', at('01T12:00:00'), at('02T02:59:59.999'))).toBeNull();
    expect(dueSince('0 3 * * *', at('01T12:00:00'), at('02T03:00:00'))).toEqual({ at: at('02T03:00:00'), missed: 0 });
    expect(dueSince('0 3 * * *', at('02T03:00:00'), at('02T23:00:00'))).toBeNull();
  });

  it('counts what was missed', () => {
    expect(dueSince('0 3 * * *', at('01T12:00:00'), at('05T08:00:00'))).toEqual({ at: at('05T03:00:00'), missed: 3 });
    expect(dueSince('* * * * *', at('01T12:00:00'), at('05T08:00:00'))?.missed).toBe(1000);
  });

  it('takes names of days', () => {
    expect(dueSince('30 4 * * MON', at('01T12:00:00'), at('03T00:00:00'))?.at).toEqual(at('02T04:30:00'));
  });
});
