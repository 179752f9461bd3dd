/** Step 7: accept the answer as it is, or have a person review it. */
import type { TaskDefinition } from '../task/types.js';
import type { RouteName } from './types.js';
import type { Score } from './score.js';

export function route(score: Score, routing: TaskDefinition['routing']): RouteName {
  if (routing.reviewContested && (score.disagreement?.dissenting ?? 0) > 0) return 'REVIEW';
  if (!score.calibrated) return routing.beforeCalibration === 'review' ? 'REVIEW' : 'ACCEPT';
  return score.confidence < routing.accept ? 'REVIEW' : 'ACCEPT';
}
