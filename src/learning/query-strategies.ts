/**
 * How the review queue orders what a strategy may choose from (Settles 2009, "Active Learning Literature Survey",
 * section 3.1 and 3.2). Each order is by stored columns, so that a page of it is one query. Where a text may have several
 * labels the columns hold what corresponds: the least certain decision, the label nearest to its threshold, the mean of
 * the labels' entropies (score.ts).
 */
import type { QuestionOrder } from '../storage/questions.repository.js';

export const QUERY_STRATEGIES = [
  'LEAST_CONFIDENCE',
  'BREAKING_TIES',
  'ENTROPY',
  'VOTE_ENTROPY',
  'BALD',
  'DIVERSE',
  'RANDOM_AUDIT',
] as const;
export type QueryStrategyName = (typeof QUERY_STRATEGIES)[number];

/** What wins on the mean (docs/results/label-efficiency.md). */
export const DEFAULT_STRATEGY: QueryStrategyName = 'DIVERSE';
/** By default where no model can compare texts now. */
export const WITHOUT_MODEL: QueryStrategyName = 'BREAKING_TIES';

/** Columns in order of weight. Null: nothing is chosen by columns (DIVERSE), or nothing at all (RANDOM_AUDIT). */
export function orderOf(strategy: QueryStrategyName): QuestionOrder[] | null {
  return ORDERS[strategy];
}

/** The closest calls first. */
export const BY_MARGIN: QuestionOrder[] = [
  { column: 'margin', direction: 'ASC' },
  { column: 'confidence', direction: 'ASC' },
];

const ORDERS: Record<QueryStrategyName, QuestionOrder[] | null> = {
  LEAST_CONFIDENCE: [
    { column: 'confidence', direction: 'ASC' },
    { column: 'margin', direction: 'ASC' },
  ],
  BREAKING_TIES: BY_MARGIN,
  ENTROPY: [{ column: 'entropy', direction: 'DESC' }],
  // Few members give few distinct values: the margin decides between equals.
  VOTE_ENTROPY: [
    { column: 'voteEntropy', direction: 'DESC' },
    { column: 'margin', direction: 'ASC' },
  ],
  // What the members know together and not each: H of the mean minus mean H (Houlsby et al. 2011).
  BALD: [
    { column: 'jensenShannon', direction: 'DESC' },
    { column: 'margin', direction: 'ASC' },
  ],
  DIVERSE: null,
  RANDOM_AUDIT: null,
};
