import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';

/** An answer to a question drawn at random, beside what was served. */
export interface AuditAnswer {
  labels: string[];
  choices: string[] | null;
  /** inference/types.ts Prediction, as it was when the text was served. */
  servedPrediction: object;
}

export interface AuditCounts {
  /** Drawn texts that nobody was asked about yet, and those that were passed over. */
  waiting: number;
  skipped: number;
}

/** Served by the version: the audit slice holds a prediction of each, which scoring anew leaves as it was. */
const SERVED = `c.task = $1 AND c.audit AND (c.served_prediction ->> 'modelVersion')::int = $2`;

@Injectable()
export class AuditRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /**
   * Answers by which the version is judged: to texts that it served before anybody had labelled them. Of each what people
   * said when it was asked at random; a doubtful label that was looked at again, or a file's, is a correction that models
   * or people chose to make, where they doubted it, and would make the figure better than it is.
   */
  answers(task: string, version: number): Promise<AuditAnswer[]> {
    return this.dataSource.manager.query<AuditAnswer[]>(
      `SELECT coalesce((
           SELECT a.labels FROM answer a
           WHERE a.candidate = c.id AND a.undone_at IS NULL AND a.labels IS NOT NULL AND a.asked <> 'LABEL_ISSUE'
           ORDER BY a.seq DESC LIMIT 1), e.labels) AS labels,
         e.choices, c.served_prediction AS "servedPrediction"
       FROM candidate c JOIN example e ON e.task = c.task AND e.item_key = c.item_key
       WHERE ${SERVED} AND e.origin = 'AUDIT' AND e.revoked_at IS NULL
       ORDER BY c.item_key`,
      [task, version],
    );
  }

  async counts(task: string, version: number): Promise<AuditCounts> {
    const [row] = await this.dataSource.manager.query<AuditCounts[]>(
      `SELECT (count(*) FILTER (WHERE c.state = 'OPEN'))::int AS waiting,
         (count(*) FILTER (WHERE c.state = 'SKIPPED'))::int AS skipped
       FROM candidate c WHERE ${SERVED}`,
      [task, version],
    );
    return row!;
  }
}
