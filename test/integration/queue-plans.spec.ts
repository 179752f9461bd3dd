/** The statements of the review queue against a pool that is large enough to have plans: see docs/results/review-queue.md. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DataSource } from 'typeorm';
import { orderOf, type QueryStrategyName } from '../../src/learning/query-strategies.js';
import { connect } from '../../src/storage/database.js';
import { CandidatesRepository } from '../../src/storage/candidates.repository.js';
import { ExamplesRepository } from '../../src/storage/examples.repository.js';
import { QuestionsRepository, type QuestionFilter } from '../../src/storage/questions.repository.js';
import { createDatabase } from '../fixtures/database.js';
import { explain, fillPool, nodesOf, rowsRead } from '../fixtures/large-pool.js';

const ROWS = 20_000;
const PAGE = 21;

let database: Awaited<ReturnType<typeof createDatabase>>;
let source: DataSource;

beforeAll(async () => {
  database = await createDatabase();
  source = await connect(database.url);
  await fillPool(source, ROWS);
}, 60_000);
afterAll(async () => {
  await source?.destroy();
  await database?.drop();
});

/** How the candidates to be asked are found: by which index, and how many rows are read for a page. */
async function found(strategy: QueryStrategyName, filter: QuestionFilter) {
  const questions = new QuestionsRepository(source);
  const order = orderOf(strategy)!;
  const [explained] = await explain(source, 'JSON', () =>
    questions.chosen('t', order, null, PAGE, { by: 'ann', filter }),
  );
  const all = nodesOf(explained);
  const scan = all.find(({ Alias, 'Node Type': type }) => Alias === 'c' && type.includes('Scan'))!;
  return {
    types: all.map((node) => node['Node Type']),
    index: scan['Index Name'],
    read: rowsRead(scan),
  };
}

describe('a page of questions', () => {
  it.each<[QueryStrategyName, QuestionFilter, string]>([
    ['BREAKING_TIES', {}, 'candidate_margin_idx'],
    ['LEAST_CONFIDENCE', {}, 'candidate_confidence_idx'],
    ['ENTROPY', {}, 'candidate_entropy_idx'],
    ['VOTE_ENTROPY', {}, 'candidate_votes_idx'],
    ['BALD', {}, 'candidate_bald_idx'],
    ['BREAKING_TIES', { label: 'l2' }, 'candidate_label_idx'],
    ['BREAKING_TIES', { contested: true }, 'candidate_margin_idx'],
    ['BREAKING_TIES', { label: 'l2', contested: true, maxConfidence: 0.2 }, 'candidate_label_idx'],
    ['BREAKING_TIES', { label: 'l3', contested: true }, 'candidate_label_idx'],
    ['ENTROPY', { minVoteEntropy: 0.8 }, 'candidate_entropy_idx'],
  ])('%s %o reads a few rows of %s, in its order', async (strategy, filter, index) => {
    const plan = await found(strategy, filter);
    expect(plan).toMatchObject({ index });
    expect(plan.read).toBeLessThanOrEqual(4 * PAGE);
    expect(plan.types).not.toContain('Sort');
  });

  it('looks for what was answered since the model was made among the newest', async () => {
    await source.query(
      `INSERT INTO model_version (task, version, state, digest, manifest, report, folder, task_revision, created_at)
       VALUES ('t', 1, 'ACTIVE', '', '{}', '{}', '', 1, now() - interval '2 hours')`,
    );
    await source.query(
      `INSERT INTO example (task, item_key, split_group, text, labels, split, origin, created_at)
       SELECT 't', 'e' || i, 'e' || i, '已答', ARRAY['l1'], 'train', 'ANSWER', now() - make_interval(mins => i)
       FROM generate_series(1, 5000) AS i`,
    );
    await source.query('ANALYZE example');
    const examples = new ExamplesRepository(source);
    const [explained] = await explain(source, 'JSON', () => examples.taughtSince('t', 1, 64));
    const scans = nodesOf(explained).filter((node) => node['Relation Name'] === 'example');
    expect(scans).toMatchObject([{ 'Index Name': 'example_created_idx', 'Actual Rows': 64 }]);
  });
});

it('sees without reading the pool that every open candidate is of the active version', async () => {
  // Those that were answered are of the one before, for ever.
  await source.query(`UPDATE task SET active_version = 2`);
  await source.query(`UPDATE candidate SET model_version = 2 WHERE state = 'OPEN'`);
  await source.query('VACUUM ANALYZE candidate');
  const candidates = new CandidatesRepository(source);
  const [explained] = await explain(source, 'JSON', () => candidates.findStale('t', 2, 64));
  const scans = nodesOf(explained).filter((node) => node['Relation Name'] === 'candidate' && node['Actual Loops'] > 0);
  expect(scans.map((node) => [node['Index Name'], node['Actual Rows']])).toEqual([
    ['candidate_version_idx', 1],
    ['candidate_version_idx', 1],
  ]);
});
