import type { MigrationInterface, QueryRunner } from 'typeorm';

const OPEN = `WHERE state = 'OPEN'`;
/** What a strategy may choose from. */
const ASKED = `WHERE state = 'OPEN' AND reason IS NULL AND split = 'train' AND NOT audit`;

/** By name: the columns before, and those from now on. The margin's also serves rows that are to be scored anew. */
const INDEXES: Record<string, [before: string, after: string]> = {
  candidate_margin_idx: [
    `(task, margin, confidence, id) ${OPEN}`,
    `(task, margin, confidence, id, dissenting, vote_entropy, jensen_shannon) ${OPEN}`,
  ],
  candidate_label_idx: [
    `(task, predicted_label, margin, confidence, id) ${OPEN}`,
    `(task, predicted_label, margin, confidence, id, dissenting, vote_entropy, jensen_shannon) ${ASKED}`,
  ],
  candidate_confidence_idx: [
    `(task, confidence, margin, id) ${OPEN}`,
    `(task, confidence, margin, id, dissenting, vote_entropy, jensen_shannon, predicted_label) ${ASKED}`,
  ],
  candidate_entropy_idx: [
    `(task, entropy DESC, id) ${OPEN}`,
    `(task, entropy DESC, id, dissenting, confidence, vote_entropy, jensen_shannon, predicted_label) ${ASKED}`,
  ],
  candidate_votes_idx: [
    `(task, vote_entropy DESC, margin, id) ${OPEN}`,
    `(task, vote_entropy DESC, margin, id, dissenting, confidence, jensen_shannon, predicted_label) ${ASKED}`,
  ],
  candidate_bald_idx: [
    `(task, jensen_shannon DESC, margin, id) ${OPEN}`,
    `(task, jensen_shannon DESC, margin, id, dissenting, confidence, vote_entropy, predicted_label) ${ASKED}`,
  ],
};

/**
 * The review queue's filters are in the indexes of its orders, behind what they order by: a filter that few rows meet
 * is tried on the index alone and not on every row before them. A million rows take about half a minute, during which
 * candidates are read and not written.
 */
export class QueueIndexes1795850000000 implements MigrationInterface {
  name = 'QueueIndexes1795850000000';

  async up(query: QueryRunner): Promise<void> {
    for (const [name, [, after]] of Object.entries(INDEXES)) await replace(query, name, after);
    await query.query('DROP INDEX candidate_contested_idx');
  }

  async down(query: QueryRunner): Promise<void> {
    await query.query(
      `CREATE INDEX candidate_contested_idx ON candidate (task, margin, confidence, id) ${OPEN} AND dissenting > 0`,
    );
    for (const [name, [before]] of Object.entries(INDEXES)) await replace(query, name, before);
  }
}

async function replace(query: QueryRunner, name: string, columns: string): Promise<void> {
  await query.query(`DROP INDEX ${name}`);
  await query.query(`CREATE INDEX ${name} ON candidate ${columns}`);
}
