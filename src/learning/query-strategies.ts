/**
 * How the review queue orders what a strategy may choose from (Settles 2009, "Active Learning Literature Survey",
 * section 3.1 and 3.2). Each order is by stored columns, so that a page of it is one query. Where a text may have several
 * labels the columns hold what corresponds: the least certain decision, the label nearest to its threshold, the mean of
 * the labels' entropies (score.ts).
 */
import { badInput } from '../common/errors.js';
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

export const DEFAULT_STRATEGY: QueryStrategyName = 'BREAKING_TIES';

/** Columns in order of weight. Null: nothing is chosen, all questions come from the audit slice. Throws BAD_INPUT. */
export function orderOf(strategy: QueryStrategyName): QuestionOrder[] | null {
  switch (strategy) {
    case 'LEAST_CONFIDENCE':
      return [
        { column: 'confidence', direction: 'ASC' },
        { column: 'margin', direction: 'ASC' },
      ];
    case 'BREAKING_TIES':
      return [
        { column: 'margin', direction: 'ASC' },
        { column: 'confidence', direction: 'ASC' },
      ];
    case 'ENTROPY':
      return [{ column: 'entropy', direction: 'DESC' }];
    case 'VOTE_ENTROPY':
      // Few members give few distinct values: the margin decides between equals.
      return [
        { column: 'voteEntropy', direction: 'DESC' },
        { column: 'margin', direction: 'ASC' },
      ];
    case 'RANDOM_AUDIT':
      return null;
    default:
      throw badInput('strategy', `${strategy} is not supported yet`);
  }
}
