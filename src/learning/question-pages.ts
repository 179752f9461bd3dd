/** Pages of the review queue: how its kinds of questions are mixed, and where a page goes on. Pure. */
import { badInput, type FewloopError } from '../common/errors.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import type { CheckPosition, QuestionPosition } from '../storage/questions.repository.js';
import { orderOf, type QueryStrategyName } from './query-strategies.js';
import { UUID } from './runs.js';

/** Where a page begins: after what was shown of each kind. */
export interface Cursor {
  strategy: QueryStrategyName;
  /** Questions so far, answered ones, held ones and shown ones: decides whose turn it is. */
  asked: number;
  check: CheckPosition | null;
  chosen: QuestionPosition | null;
  audit: string | null;
}

/** Questions that a strategy chose, in order, and where a page goes on behind each. */
export interface Chosen {
  rows: CandidateRow[];
  position(row: CandidateRow): QuestionPosition;
}

export interface Edge {
  cursor: string;
  node: CandidateRow;
}

const AUDIT_EVERY = 5;

/** What is to be checked comes first; then every fifth is of the audit slice. Where one kind has run out, the other goes on. */
export function interleave(
  start: Cursor,
  checks: CandidateRow[],
  { rows: chosen, position }: Chosen,
  audit: CandidateRow[],
  first: number,
): Edge[] {
  const edges: Edge[] = [];
  let cursor = start;
  const show = (node: CandidateRow, moved: Partial<Cursor>): void => {
    cursor = { ...cursor, ...moved, asked: cursor.asked + 1 };
    edges.push({ cursor: Buffer.from(JSON.stringify(cursor)).toString('base64url'), node });
  };
  for (const node of checks.slice(0, first)) show(node, { check: { priority: node.priority, id: node.id } });
  let [c, a] = [0, 0];
  while (edges.length < first && (c < chosen.length || a < audit.length)) {
    const auditsTurn = cursor.asked % AUDIT_EVERY === AUDIT_EVERY - 1;
    const takeAudit = a < audit.length && (auditsTurn || c === chosen.length);
    const node = takeAudit ? audit[a++]! : chosen[c++]!;
    show(node, takeAudit ? { audit: node.itemKey } : { chosen: position(node) });
  }
  return edges;
}

/** `strategies`: whose cursor it may be. Throws BAD_INPUT on `after`. */
export function readCursor(text: string, strategies: readonly QueryStrategyName[]): Cursor {
  const bad = (why: string): FewloopError => badInput('after', why);
  let cursor: Cursor;
  try {
    cursor = JSON.parse(Buffer.from(text, 'base64url').toString()) as Cursor;
  } catch {
    throw bad('is not a cursor of this queue');
  }
  if (!strategies.includes(cursor?.strategy)) throw bad('is a cursor of another strategy');
  const { strategy, asked, check, chosen, audit } = cursor;
  const columns = orderOf(strategy)?.length ?? 1;
  const checkHolds =
    check === null || (typeof check === 'object' && UUID.test(check.id) && Number.isFinite(check.priority));
  const positionHolds =
    chosen === null ||
    (typeof chosen === 'object' &&
      UUID.test(chosen.id) &&
      Array.isArray(chosen.values) &&
      chosen.values.length === columns &&
      chosen.values.every(Number.isFinite));
  const auditHolds = audit === null || (typeof audit === 'string' && /^[0-9a-f]{64}$/u.test(audit));
  if (!Number.isInteger(asked) || !checkHolds || !positionHolds || !auditHolds) {
    throw bad('is not a cursor of this queue');
  }
  return cursor;
}
