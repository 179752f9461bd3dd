/** The active version by the audit slice: see live-accuracy.ts. Imports of other modules: inference, storage, task. */
import { Inject, Injectable } from '@nestjs/common';
import type { Prediction } from '../inference/types.js';
import { AuditRepository, type AuditAnswer, type AuditCounts } from '../storage/audit.repository.js';
import { TasksRepository } from '../storage/tasks.repository.js';
import type { TaskDefinition } from '../task/types.js';
import { currentLabels, namedNow, presentName } from './data-set.js';
import { isRight, type JudgedRow } from './gate-figures.js';
import { liveAccuracyOf, type LiveAccuracy } from './live-accuracy.js';

export interface AuditReport extends LiveAccuracy, AuditCounts {
  version: number;
}

@Injectable()
export class AuditService {
  constructor(
    @Inject(TasksRepository) private readonly tasks: TasksRepository,
    @Inject(AuditRepository) private readonly audit: AuditRepository,
  ) {}

  /** Null where the task has no active version, or is none. */
  async liveAccuracy(taskName: string): Promise<AuditReport | null> {
    const task = await this.tasks.find(taskName);
    if (!task || task.activeVersion === null) return null;
    const version = task.activeVersion;
    const definition = task.definition as TaskDefinition;
    const [figures, counts] = await Promise.all([
      this.accuracyOf(taskName, version, definition),
      this.audit.counts(taskName, version),
    ]);
    return { version, ...figures, ...counts };
  }

  /** Of any version that has answered, by the present names of the labels. */
  async accuracyOf(task: string, version: number, definition: TaskDefinition): Promise<LiveAccuracy> {
    const judged = (await this.audit.answers(task, version)).flatMap((answer) => judge(definition, answer) ?? []);
    return liveAccuracyOf(
      judged,
      definition.labels.map(({ name }) => name),
    );
  }
}

/** By the task's present names; null where the answer's label was removed since. */
export function judge(definition: TaskDefinition, answer: AuditAnswer): JudgedRow | null {
  const labels = currentLabels(definition, answer);
  if (labels === null) return null;
  const served = answer.servedPrediction as Prediction;
  const said = namedNow(definition, served.labels);
  if (definition.kind !== 'multi-label') {
    const forecasts = [{ probability: served.confidence, hit: isRight({ labels, answer: said }) }];
    return { labels, answer: said, confidence: served.confidence, forecasts };
  }
  const forecasts = served.distribution.flatMap(({ label, probability }) => {
    const name = presentName(definition, label);
    return name === null ? [] : [{ probability, hit: labels.includes(name) }];
  });
  return { labels, answer: said, confidence: served.confidence, forecasts };
}
