import { Inject, Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';

export interface Count {
  task: string;
  value: number;
}

export interface NamedCount extends Count {
  name: string;
}

/** Over all tasks. */
export interface LoopCounts {
  /** By state. */
  candidates: NamedCount[];
  /** Open candidates that are routed to review or of the audit slice. */
  questions: Count[];
  /** By state; a task without a failed or successful run has none of it. */
  runs: NamedCount[];
  /** By decision, PENDING where there is none. */
  promotions: NamedCount[];
  /** Age of the oldest pending promotion, seconds. */
  waiting: Count[];
}

/** For the metrics. */
@Injectable()
export class LoopCountsRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  async read(): Promise<LoopCounts> {
    const [candidates, questions, runs, promotions, waiting] = await Promise.all([
      this.#query<NamedCount>('SELECT task, state AS name, count(*)::int AS value FROM candidate GROUP BY 1, 2'),
      this.#query<Count>(
        `SELECT t.name AS task, count(c.id)::int AS value FROM task t
         LEFT JOIN candidate c ON c.task = t.name AND c.state = 'OPEN' AND (c.route = 'REVIEW' OR c.audit)
         GROUP BY 1`,
      ),
      this.#query<NamedCount>('SELECT task, state AS name, count(*)::int AS value FROM training_run GROUP BY 1, 2'),
      this.#query<NamedCount>(
        `SELECT task, coalesce(decision, 'PENDING') AS name, count(*)::int AS value FROM promotion GROUP BY 1, 2`,
      ),
      this.#query<Count>(
        `SELECT task, extract(epoch FROM now() - min(requested_at))::float8 AS value FROM promotion
         WHERE decision IS NULL GROUP BY 1`,
      ),
    ]);
    return { candidates, questions, runs, promotions, waiting };
  }

  #query<T>(sql: string): Promise<T[]> {
    return this.dataSource.manager.query<T[]>(sql);
  }
}
