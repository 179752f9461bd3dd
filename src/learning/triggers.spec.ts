import { describe, expect, it } from 'vitest';

import { mayStart } from './triggers.js';

const now = new Date('2026-03-01T12:00:00Z');
const minutesAgo = (minutes: number) => new Date(now.getTime() - minutes * 60_000);

describe('cool-down', () => {
  it('lets the first run start at once', () => {
    expect(mayStart(null, { cooldownMinutes: 60 }, now)).toBe(true);
  });

  it('counts from the end of the last run, however it ended', () => {
    const last = { state: 'FAILED' as const, createdAt: minutesAgo(90), finishedAt: minutesAgo(59) };
    expect(mayStart(last, { cooldownMinutes: 60 }, now)).toBe(false);
    expect(mayStart({ ...last, finishedAt: minutesAgo(60) }, { cooldownMinutes: 60 }, now)).toBe(true);
    expect(mayStart(last, { cooldownMinutes: 0 }, now)).toBe(true);
  });

  it('waits for a run that is not over', () => {
    const open = { state: 'RUNNING' as const, createdAt: minutesAgo(500), finishedAt: null };
    expect(mayStart(open, { cooldownMinutes: 0 }, now)).toBe(false);
  });
});
