import { Inject, Injectable } from '@nestjs/common';
import { DataSource, IsNull } from 'typeorm';
import { AnswerRow, type BeforeAnswer, type QuestionReason } from './entities/answer.js';
import { RENAMED_LABELS } from './renamed-labels.js';
import type { Tx } from './transactions.js';

export interface NewAnswer {
  task: string;
  candidate: string;
  answeredBy: string;
  asked: QuestionReason;
  strategy: string | null;
  labels: string[] | null;
  skipReason: string | null;
  before: BeforeAnswer;
}

/** Of the questions that two labelers answered, each on their own. */
export interface AgreementAnswers {
  /** Label sets of each question's answers, the newest questions first. */
  questions: string[][][];
  /** Questions that wait for a second answer, and for a decision. */
  waiting: number;
  disputed: number;
}

@Injectable()
export class AnswersRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  async insert(answer: NewAnswer, tx: Tx): Promise<void> {
    await tx.insert(AnswerRow, answer);
  }

  /** Those that were not taken back, oldest first. */
  standing(candidate: string, tx?: Tx): Promise<AnswerRow[]> {
    const manager = tx ?? this.dataSource.manager;
    return manager.find(AnswerRow, { where: { candidate, undoneAt: IsNull() }, order: { seq: 'ASC' } });
  }

  /** The labeler's newest that was not taken back. */
  last(task: string, by: string, tx: Tx): Promise<AnswerRow | null> {
    return tx.findOne(AnswerRow, {
      where: { task, answeredBy: by, undoneAt: IsNull() },
      order: { seq: 'DESC' },
    });
  }

  async markUndone(id: string, tx: Tx): Promise<void> {
    await tx.update(AnswerRow, { id }, { undoneAt: new Date() });
  }

  /** What an adjudicator says, or who looks at a doubtful label, is no answer given on its own. */
  async agreement(task: string, limit: number): Promise<AgreementAnswers> {
    const manager = this.dataSource.manager;
    const questions = await manager.query<{ sets: string[][] }[]>(
      `SELECT json_agg(labels ORDER BY seq) AS sets FROM answer
       WHERE task = $1 AND undone_at IS NULL AND labels IS NOT NULL AND asked IN ('STRATEGY', 'AUDIT', 'SECOND_ANSWER')
       GROUP BY candidate HAVING count(*) > 1 ORDER BY max(seq) DESC LIMIT $2`,
      [task, limit],
    );
    const [counts] = await manager.query<{ waiting: number; disputed: number }[]>(
      `SELECT (count(*) FILTER (WHERE reason = 'SECOND_ANSWER'))::int AS waiting,
         (count(*) FILTER (WHERE reason = 'ADJUDICATION'))::int AS disputed
       FROM candidate WHERE task = $1 AND reason IS NOT NULL`,
      [task],
    );
    return { questions: questions.map(({ sets }) => sets), ...counts! };
  }

  async renameLabels(task: string, renames: ReadonlyMap<string, string>, tx: Tx): Promise<void> {
    for (const [from, to] of renames) {
      await tx.query(`UPDATE answer SET labels = ${RENAMED_LABELS} WHERE task = $1 AND $2 = ANY(labels)`, [
        task,
        from,
        to,
      ]);
    }
  }
}
