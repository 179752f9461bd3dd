/**
 * What the queue takes and what it refuses: as much as waits or is in flight is bounded in tokens, and work with a
 * deadline that would pass before its turn is not taken. One for all runners, because they share the machine.
 */
import { FewloopError } from '../common/errors.js';
import { RESERVED_SHARE } from './batch.js';
import type { ClassifyRequest, Priority, ServedModel } from './types.js';

/** Of the time that is left: work that is expected to wait longer is refused, so that what is taken is in time. */
const HEADROOM = 0.5;
/** While nothing has been measured. */
const ASSUMED_TOKENS_PER_MS = 1;

interface Tokens {
  interactive: number;
  other: number;
}

export interface Applicant
  extends Pick<ClassifyRequest, 'priority' | 'deadlineAt'>, Partial<Pick<ServedModel, 'tokensPerMs'>> {}

export class Admission {
  private readonly waiting: Tokens = { interactive: 0, other: 0 };
  private readonly inFlight: Tokens = { interactive: 0, other: 0 };
  /** What all runners do together, a moving average; unknown before the first batch. */
  private measuredPerMs: number | undefined;

  /** `maxQueuedTokens`: half of them are for interactive work alone. */
  constructor(private readonly maxQueuedTokens: number) {}

  /** That wait or are in flight. */
  get tokens(): number {
    return sum(this.waiting) + sum(this.inFlight);
  }

  /** Throws OVERLOADED where so many tokens more are too many, or would be late. */
  check(tokens: number, applicant: Applicant): void {
    if (this.hasRoom(tokens, applicant.priority) && !this.isHopeless(applicant)) return;
    const waitMs = Math.ceil(this.tokens / (this.perMs(applicant) ?? ASSUMED_TOKENS_PER_MS));
    throw new FewloopError('OVERLOADED', 'more texts are waiting than this machine can score soon', {
      retryAfterMs: Math.min(30_000, Math.max(50, waitMs)),
    });
  }

  /** So many have come to wait; less than none: they have gone unanswered. */
  wait(tokens: number, priority: Priority): void {
    this.waiting[classOf(priority)] += tokens;
  }

  /** So many that waited are in flight. */
  start(tokens: number, priority: Priority): void {
    this.waiting[classOf(priority)] -= tokens;
    this.inFlight[classOf(priority)] += tokens;
  }

  end(tokens: number, priority: Priority): void {
    this.inFlight[classOf(priority)] -= tokens;
  }

  /** A batch was done at this rate. */
  note(tokensPerMs: number): void {
    this.measuredPerMs = 0.8 * (this.measuredPerMs ?? tokensPerMs) + 0.2 * tokensPerMs;
  }

  private hasRoom(tokens: number, priority: Priority): boolean {
    const most = this.maxQueuedTokens;
    const share = most / 2;
    const own = this.waiting[classOf(priority)] + this.inFlight[classOf(priority)];
    // What is larger than its share may go when nothing of it is taken: else it never could. One text of a task with
    // many hypotheses is as large as a hundred others, and a stream of them must not keep requests out.
    if (priority === 'interactive') return this.tokens + tokens <= most || own === 0 || own + tokens <= share;
    if (tokens > share) return own === 0 && this.tokens <= share;
    return this.tokens + tokens <= share;
  }

  /** Whether what goes before it takes longer than its deadline allows. */
  private isHopeless({ priority, deadlineAt, tokensPerMs }: Applicant): boolean {
    const perMs = this.perMs({ tokensPerMs });
    if (deadlineAt === undefined || perMs === undefined) return false;
    const before = this.tokensBefore(priority);
    return before > 0 && before / perMs > HEADROOM * (deadlineAt - Date.now());
  }

  /** What is in flight is not called back; of other work interactive work lets pass what its reserved share leaves. */
  private tokensBefore(priority: Priority): number {
    if (priority !== 'interactive') return this.tokens;
    const { interactive, other } = this.waiting;
    return sum(this.inFlight) + interactive + Math.min(other, interactive * (1 / RESERVED_SHARE - 1));
  }

  private perMs({ tokensPerMs }: Pick<Applicant, 'tokensPerMs'>): number | undefined {
    return this.measuredPerMs ?? tokensPerMs;
  }
}

function classOf(priority: Priority): keyof Tokens {
  return priority === 'interactive' ? 'interactive' : 'other';
}

function sum({ interactive, other }: Tokens): number {
  return interactive + other;
}
