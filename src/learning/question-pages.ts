/** Pages of the review queue: how its kinds of questions are mixed, and where a page goes on. Pure. */
import { badInput, type FewloopError } from '../common/errors.js';
import type { CandidateRow } from '../storage/entities/candidate.js';
import type { CheckPosition, QuestionPosition } from '../storage/questions.repository.js';
import { orderOf, type QueryStrategyName } from './query-strategies.js';
import { UUID } from './runs.js';

/** Of DIVERSE the value is a place in the order of `compared`. */
export interface ChosenPosition extends QuestionPosition {
  compared?: { order: string; behind: QuestionPosition | null };
}

/** Where a page begins: after what was shown of each kind. */
export interface Cursor {
  strategy: QueryStrategyName;
  /** Questions so far, answered ones, held ones and shown ones: decides whose turn it is. */
  asked: number;
  check: CheckPosition | null;
  chosen: ChosenPosition | null;
  audit: string | null;
}

/** Questions that a strategy chose, in order, and where a page goes on behind each. */
export interface Chosen {
  rows: CandidateRow[];
  position(row: CandidateRow): ChosenPosition;
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
  const order = orderOf(strategy);
  const checkHolds =
    check === null || (typeof check === 'object' && UUID.test(check.id) && Number.isFinite(check.priority));
  const chosenHolds = chosen === null || (order ? isPosition(chosen, order.length) : isPlace(chosen));
  const auditHolds = audit === null || (typeof audit === 'string' && /^[0-9a-f]{64}$/u.test(audit));
  if (!Number.isInteger(asked) || !checkHolds || !chosenHolds || !auditHolds) {
    throw bad('is not a cursor of this queue');
  }
  return cursor;
}

function isPosition(value: unknown, columns?: number): value is QuestionPosition {
  if (typeof value !== 'object' || value === null) return false;
  const { values, id } = value as Partial<QuestionPosition>;
  const valuesHold =
    Array.isArray(values) && values.every(Number.isFinite) && values.length === (columns ?? values.length);
  return valuesHold && typeof id === 'string' && UUID.test(id);
}

function isPlace(value: ChosenPosition): boolean {
  const { compared } = value;
  const comparedHolds =
    typeof compared === 'object' &&
    compared !== null &&
    typeof compared.order === 'string' &&
    (compared.behind === null || isPosition(compared.behind));
  return comparedHolds && isPosition(value, 1) && Number.isInteger(value.values[0]) && value.values[0]! >= 0;
}
