/**
 * What a page of the review queue takes with ROWS candidates in the pool: a real PostgreSQL of its own, made candidates of
 * one task (a tenth of them audit slice or contested, near-duplicates, answered ones, all splits), every strategy and
 * filter, the first page and pages behind it. Prints JSON: milliseconds by what was asked, and the plans (docs/results/review-queue.md).
 *   node bench/review-queue/run.ts ROWS [--plans]
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const dist = (path: string): Promise<Record<string, any>> => import(new URL(`../../dist/src/${path}`, import.meta.url).href);
const { startEmbeddedPostgres } = await dist('storage/embedded-postgres.js');
const { connect } = await dist('storage/database.js');
const { QuestionsRepository } = await dist('storage/questions.repository.js');
const { CandidatesRepository } = await dist('storage/candidates.repository.js');
const { QuestionQueue } = await dist('learning/question-queue.js');

const rows = Number(process.argv[2] ?? 100_000);
const PAGES = 20;
const folder = mkdtempSync(join(tmpdir(), 'fewloop-queue-'));
chmodSync(folder, 0o755); // PostgreSQL may run as another user, who walks through it
const server = await startEmbeddedPostgres({ dir: join(folder, 'data') });
const database = await connect(server.url);

/** Deterministic, without a seed of PostgreSQL's: a number in [0, 1) of a row and a name. */
const uniform = (name: string) => `(('x' || substr(md5(i || '${name}'), 1, 8))::bit(32)::bigint::double precision / 4294967296)`;

async function fill(): Promise<number> {
  const startedAt = performance.now();
  await database.query(
    `INSERT INTO task (name, kind, revision, definition, definition_digest) VALUES ('t', 'single-label', 1, '{}', '')`,
  );
  // Built afterwards, as they would be: a million rows into a dozen indexes in no order take ten minutes.
  const indexes = (await database.query(
    `SELECT indexdef, indexname FROM pg_indexes WHERE tablename = 'candidate' AND indexdef NOT LIKE 'CREATE UNIQUE%'`,
  )) as { indexdef: string; indexname: string }[];
  for (const { indexname } of indexes) await database.query(`DROP INDEX ${indexname}`);
  await database.query(`
    INSERT INTO candidate (task, item_key, split_group, near_group, bands, split, text, prediction, model_version, predicted_label,
      confidence, margin, entropy, vote_entropy, jensen_shannon, dissenting, route, audit, reservoir_rank, state, received_at)
    SELECT 't', encode(sha256(('k' || i)::bytea), 'hex'), encode(sha256(('g' || i)::bytea), 'hex'),
      -- One in ten is nearly the same as another.
      left(encode(sha256(('g' || CASE WHEN i % 10 = 0 THEN i - 1 ELSE i END)::bytea), 'hex'), 16), NULL,
      CASE WHEN ${uniform('s')} < 0.7 THEN 'train' WHEN ${uniform('s')} < 0.8 THEN 'dev' ELSE 'test' END,
      '第' || i || '条评价：房间还可以，早餐一般，服务周到', jsonb_build_object('label', 'l' || i % 10, 'distribution', jsonb_build_array(1, 2, 3)),
      1, 'l' || i % 10, ${uniform('c')}, ${uniform('m')}, ${uniform('e')}, ${uniform('v')} * (i % 4 = 0)::int,
      ${uniform('j')} * (i % 4 = 0)::int, (i % 4 = 0)::int, CASE WHEN ${uniform('c')} < 0.6 THEN 'REVIEW' ELSE 'ACCEPT' END,
      ${uniform('a')} < 0.02, CASE WHEN ${uniform('r')} < 2000.0 / $1 THEN ${uniform('r')} END,
      CASE WHEN ${uniform('o')} < 0.02 THEN 'LABELLED' ELSE 'OPEN' END, now()
    FROM generate_series(1, $1::int) AS i`,
    [rows],
  );
  for (const { indexdef } of indexes) await database.query(indexdef);
  await database.query('VACUUM ANALYZE');
  return (performance.now() - startedAt) / 1000;
}

const percentile = (times: number[], share: number) => times.toSorted((a, b) => a - b)[Math.ceil(share * times.length) - 1]!;

try {
  const filledSeconds = await fill();
  const candidates = new CandidatesRepository(database);
  const queue = new QuestionQueue(new QuestionsRepository(database), candidates, null);
  const asked = {
    ...Object.fromEntries(['BREAKING_TIES', 'LEAST_CONFIDENCE', 'ENTROPY', 'VOTE_ENTROPY', 'BALD', 'RANDOM_AUDIT'].map((strategy) => [strategy, { strategy }])),
    'label l3': { filter: { label: 'l3' } },
    contested: { filter: { contested: true } },
    'not contested': { filter: { contested: false } },
    'confidence at most 0.01': { filter: { maxConfidence: 0.01 } },
    'vote entropy at least 0.99': { filter: { minVoteEntropy: 0.99 } },
    'jensen-shannon at least 0.99': { filter: { minJensenShannon: 0.99 } },
    'label l3, contested, confidence at most 0.5': { filter: { label: 'l3', contested: true, maxConfidence: 0.5 } },
  };
  const found: Record<string, { first: number; p50: number; max: number; count: number }> = {};
  for (const [name, request] of Object.entries(asked)) {
    const times: number[] = [];
    let after: string | null = null;
    for (let page = 0; page < PAGES; page++) {
      const startedAt = performance.now();
      const { pageInfo }: { pageInfo: { hasNextPage: boolean; endCursor: string | null } } = await queue.page('t', { first: 20, after, ...request }, 'ann');
      times.push(performance.now() - startedAt);
      after = pageInfo.endCursor;
      if (!pageInfo.hasNextPage) break;
    }
    const startedAt = performance.now();
    await queue.count('t', request, 'ann');
    const count = performance.now() - startedAt;
    const rounded = { first: times[0]!, p50: percentile(times, 0.5), max: Math.max(...times), count };
    found[name] = Object.fromEntries(Object.entries(rounded).map(([key, ms]) => [key, Number(ms.toFixed(1))])) as (typeof found)[string];
  }
  console.log(JSON.stringify({ rows, filledSeconds: Math.round(filledSeconds), found }, null, 1));
} finally {
  await database.destroy();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
}
