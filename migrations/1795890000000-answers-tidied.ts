import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * What faults that are mended left in rows: a label twice, where two that a text had became one, and near-duplicates
 * closed by an answer to a text that was forgotten since.
 */
export class AnswersTidied1795890000000 implements MigrationInterface {
  name = 'AnswersTidied1795890000000';

  async up(query: QueryRunner): Promise<void> {
    for (const table of ['example', 'candidate', 'answer']) {
      await query.query(
        `UPDATE ${table} SET labels = ARRAY(
           SELECT label FROM unnest(labels) WITH ORDINALITY AS l(label, place) GROUP BY label ORDER BY min(place))
         WHERE cardinality(labels) > (SELECT count(DISTINCT label) FROM unnest(labels) AS l(label))`,
      );
    }
    await query.query(
      `UPDATE candidate AS c
       SET state = 'OPEN', labels = NULL, answered_by = NULL, answered_at = NULL, served_by = NULL
       WHERE served_by IS NOT NULL AND NOT EXISTS (SELECT 1 FROM candidate AS answered WHERE answered.id = c.served_by)`,
    );
  }

  /** The rows are as they should have been before it. */
  async down(): Promise<void> {}
}
