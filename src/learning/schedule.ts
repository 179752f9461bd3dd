/** Due times of a cron schedule, UTC. Pure. */
import { CronExpressionParser } from 'cron-parser';

export interface Due {
  /** The last due time. */
  at: Date;
  /** Earlier ones since `after`, which one run makes up for. */
  missed: number;
}

/** Counted so far; more are as good as that. */
const MOST_MISSED = 1000;

/** Null where none lies in (after, now]. */
export function dueSince(cron: string, after: Date, now: Date): Due | null {
  // The library's `prev` is strictly before: one millisecond later a due time of this very moment is one.
  const times = CronExpressionParser.parse(cron, { tz: 'UTC', currentDate: new Date(now.getTime() + 1) });
  let at: Date | null = null;
  for (let missed = -1; missed < MOST_MISSED; missed++) {
    const due = times.prev().toDate();
    if (due <= after) return at && { at, missed };
    at ??= due;
  }
  return at && { at, missed: MOST_MISSED };
}
