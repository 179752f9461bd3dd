/**
 * What a page of the review queue takes with ROWS candidates in the pool: a real PostgreSQL of its own, made candidates of
 * one task (a tenth of them audit slice or contested, near-duplicates, answered ones, all splits), every strategy and
 * filter, the first page and pages behind it, near-duplicates counted; embeddings, of DIVERSE and of a task's beginning,
 * are made ones at hand, as those of texts that were asked about lately are. Prints JSON: milliseconds by what was asked,
 * and with --plans what EXPLAIN (ANALYZE, BUFFERS) says of the strategy's statement (docs/results/review-queue.md).
 *   node bench/review-queue/run.ts ROWS [--plans]
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const dist = (path: string): Promise<Record<string, any>> => import(new URL(`../../dist/src/${path}`, import.meta.url).href);
const { quantile } = await import('../serving/load.ts');
const { explain, fillPool } = await import('../../test/fixtures/large-pool.ts');
const { startEmbeddedPostgres } = await dist('storage/embedded-postgres.js');
const { connect } = await dist('storage/database.js');
const { QuestionsRepository } = await dist('storage/questions.repository.js');
const { CandidatesRepository } = await dist('storage/candidates.repository.js');
const { ExamplesRepository } = await dist('storage/examples.repository.js');
const { DiverseQuestions, DIVERSE_AMONG } = await dist('learning/diverse-questions.js');
const { QuestionQueue } = await dist('learning/question-queue.js');
const { orderOf } = await dist('learning/query-strategies.js');

const rows = Number(process.argv[2] ?? 100_000);
const withPlans = process.argv.includes('--plans');
const PAGES = 20;
const DIMENSIONS = 512;
const LABELLED = 5000;
const folder = mkdtempSync(join(tmpdir(), 'fewloop-queue-'));
chmodSync(folder, 0o755); // PostgreSQL may run as another user, who walks through it
const server = await startEmbeddedPostgres({ dir: join(folder, 'data') });
const database = await connect(server.url);

try {
  const startedAt = performance.now();
  await fillPool(database, rows);
  const filledSeconds = (performance.now() - startedAt) / 1000;
  const candidates = new CandidatesRepository(database);
  const questions = new QuestionsRepository(database);
  const examples = new ExamplesRepository(database);
  const vectors = Array.from({ length: DIVERSE_AMONG as number }, () => Float32Array.from({ length: DIMENSIONS }, () => Math.random() - 0.5));
  // Labelled rows, fifty of them answered since the model was made.
  await database.query(
    `INSERT INTO model_version (task, version, state, digest, manifest, report, folder, task_revision, created_at)
     VALUES ('t', 1, 'ACTIVE', '', '{}', '{}', '', 1, now() - interval '50.5 minutes')`,
  );
  await database.query(
    `INSERT INTO example (task, item_key, split_group, text, labels, split, origin, created_at)
     SELECT 't', 'answered ' || i, 'answered ' || i, '已答' || i, ARRAY['l1'], 'train', 'ANSWER', now() - make_interval(mins => i)
     FROM generate_series(1, $1::int) AS i`,
    [LABELLED],
  );
  await database.query('ANALYZE example');
  const queueOf = (hasTrain: boolean) => {
    const known = {
      hasTrain: async (task: string) => (await examples.hasTrain(task), hasTrain),
      taughtSince: examples.taughtSince.bind(examples),
    };
    const embeddings = async (_: unknown, items: object[]) => items.map((__, i) => vectors[i % vectors.length]!);
    const lease = { model: { task: 't', version: 1 }, release: () => undefined };
    const diverse = new DiverseQuestions(questions, known, { current: async () => lease }, { embeddings });
    return new QuestionQueue(questions, candidates, diverse);
  };
  const asked: Record<string, { strategy?: string; filter?: object; isCold?: boolean }> = {
    'before any label (no strategy named)': { isCold: true },
    'no strategy named (DIVERSE)': {},
    ...Object.fromEntries(['BREAKING_TIES', 'LEAST_CONFIDENCE', 'ENTROPY', 'VOTE_ENTROPY', 'BALD', 'RANDOM_AUDIT'].map((strategy) => [strategy, { strategy }])),
    'label l3': { filter: { label: 'l3' } },
    contested: { filter: { contested: true } },
    'not contested': { filter: { contested: false } },
    'confidence at most 0.01': { filter: { maxConfidence: 0.01 } },
    'vote entropy at least 0.99': { filter: { minVoteEntropy: 0.99 } },
    'jensen-shannon at least 0.99': { filter: { minJensenShannon: 0.99 } },
    'label l2, contested, confidence at most 0.05': { filter: { label: 'l2', contested: true, maxConfidence: 0.05 } },
    'label l3, contested, confidence at most 0.5 (there are none)': { filter: { label: 'l3', contested: true, maxConfidence: 0.5 } },
  };
  const found: Record<string, { first: number; p50: number; max: number; count: number }> = {};
  for (const [name, { isCold = false, ...request }] of Object.entries(asked)) {
    const queue = queueOf(!isCold);
    const times: number[] = [];
    let after: string | null = null;
    for (let page = 0; page < PAGES; page++) {
      const startedAt = performance.now();
      const { edges, pageInfo }: { edges: { node: object }[]; pageInfo: { hasNextPage: boolean; endCursor: string | null } } = await queue.page('t', { first: 20, after, ...request }, 'ann');
      await queue.counted(edges.map(({ node }) => node));
      times.push(performance.now() - startedAt);
      after = pageInfo.endCursor;
      if (!pageInfo.hasNextPage) break;
    }
    const startedAt = performance.now();
    await queue.count('t', request, 'ann');
    const count = performance.now() - startedAt;
    const rounded = { first: times[0]!, p50: quantile(times, 0.5), max: Math.max(...times), count };
    found[name] = Object.fromEntries(Object.entries(rounded).map(([key, ms]) => [key, Number(ms.toFixed(1))])) as (typeof found)[string];
  }
  const plans: Record<string, unknown[]> = {};
  for (const [name, { strategy = 'BREAKING_TIES', filter = {}, isCold = false }] of withPlans ? Object.entries(asked) : []) {
    const order = orderOf(strategy);
    if (!order || isCold) continue;
    plans[name] = await explain(database, 'TEXT', () => questions.chosen('t', order, null, 21, { by: 'ann', filter }));
  }
  console.log(JSON.stringify({ rows, filledSeconds: Math.round(filledSeconds), found, plans }, null, 1));
} finally {
  await database.destroy();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
}
