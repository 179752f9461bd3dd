import { describe, expect, it } from 'vitest';

import { cooldownOf, mayStart } from './triggers.js';

const now = new Date('2026-03-01T12:00:00Z');
const minutesAgo = (minutes: number) => new Date(now.getTime() - minutes * 60_000);

describe('cool-down', () => {
  it('lets the first run start at once', () => {
    expect(mayStart(null, 60, now)).toBe(true);
  });

  it('counts from the end of the last run, however it ended', () => {
    const last = { state: 'FAILED' as const, createdAt: minutesAgo(90), finishedAt: minutesAgo(59) };
    expect(mayStart(last, 60, now)).toBe(false);
    expect(mayStart({ ...last, finishedAt: minutesAgo(60) }, 60, now)).toBe(true);
    expect(mayStart(last, 0, now)).toBe(true);
  });

  it("is one for all triggers, or each one's own", () => {
    expect(cooldownOf({ cooldownMinutes: 60 }, 'drift')).toBe(60);
    const each = { cooldownMinutes: { newLabels: 60, schedule: 0, drift: 10_080 } };
    expect((['newLabels', 'schedule', 'drift'] as const).map((trigger) => cooldownOf(each, trigger))).toEqual([
      60, 0, 10_080,
    ]);
  });

  it('waits for a run that is not over', () => {
    const open = { state: 'RUNNING' as const, createdAt: minutesAgo(500), finishedAt: null };
    expect(mayStart(open, 0, now)).toBe(false);
  });
});
