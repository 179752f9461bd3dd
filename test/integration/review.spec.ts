/** The review queue: its orders, its pages, the audit's share, and what answers become. */
import type { INestApplicationContext } from '@nestjs/common';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FewloopError } from '../../src/common/errors.js';
import type { Prediction } from '../../src/inference/types.js';
import { DIVERSE_AMONG } from '../../src/learning/diverse-questions.js';
import { PoolService } from '../../src/learning/pool.js';
import type { QueryStrategyName } from '../../src/learning/query-strategies.js';
import type { QueueRequest } from '../../src/learning/question-queue.js';
import { ReviewService } from '../../src/learning/review.js';
import { TaskService } from '../../src/learning/task-service.js';
import { ActivationService } from '../../src/registry/activation.js';
import type { CandidateRow } from '../../src/storage/entities/candidate.js';
import { ExamplesRepository } from '../../src/storage/examples.repository.js';
import { sha256, splitGroup, splitOf } from '../../src/task/keys.js';
import type { TaskDefinition } from '../../src/task/types.js';
import { createDatabase } from '../fixtures/database.js';
import { startIntake, taskFile, texts } from '../fixtures/intake.js';
import { keyed } from '../fixtures/keyed.js';

let database: Awaited<ReturnType<typeof createDatabase>>;
let dataDir: string;
let service: INestApplicationContext;
let review: ReviewService;

beforeEach(async () => {
  database = await createDatabase();
  dataDir = mkdtempSync(join(tmpdir(), 'fewloop-review-'));
  service = await startIntake({ url: database.url, dataDir, role: 'api' });
  await service.get(TaskService).apply(taskFile(), 'test');
  review = service.get(ReviewService);
  await admit(texts(300));
});
afterEach(async () => {
  await service.close();
  await database.drop();
  rmSync(dataDir, { recursive: true, force: true });
});

/** Made up from the text, so that every order has something to order, with ties. */
function prediction(text: string): Prediction {
  const confidence = 0.5 + (Number.parseInt(sha256(text).slice(0, 4), 16) % 50) / 100;
  const dissenting = Number.parseInt(sha256(text).slice(4, 8), 16) % 2;
  return {
    label: 'positive',
    labels: ['positive'],
    confidence,
    calibrated: false,
    margin: 2 * confidence - 1,
    entropy: 1 - confidence,
    disagreement: {
      voters: 2,
      dissenting,
      unanimous: dissenting === 0,
      voteEntropy: dissenting,
      jensenShannon: (confidence * 7) % 0.5,
    },
    distribution: [],
    members: [],
    route: 'REVIEW',
    modelVersion: 1,
    taskRevision: 1,
  };
}

async function admit(list: string[]): Promise<void> {
  const definition = (await service.get(TaskService).get('tiny')).definition as TaskDefinition;
  const scored = list.map((text) => ({
    item: keyed(text),
    prediction: prediction(text),
  }));
  await service.get(PoolService).admit(definition, scored);
}

async function all(request: QueueRequest): Promise<CandidateRow[]> {
  const nodes: CandidateRow[] = [];
  let after = request.after ?? null;
  for (;;) {
    const page = await review.queue('tiny', { ...request, after });
    nodes.push(...page.edges.map(({ node }) => node));
    if (!page.pageInfo.hasNextPage) return nodes;
    after = page.pageInfo.endCursor;
  }
}

const ORDERS: [QueryStrategyName, (row: CandidateRow) => number[]][] = [
  ['LEAST_CONFIDENCE', (row) => [row.confidence, row.margin]],
  ['BREAKING_TIES', (row) => [row.margin, row.confidence]],
  ['ENTROPY', (row) => [-row.entropy]],
  ['VOTE_ENTROPY', (row) => [-row.voteEntropy, row.margin]],
  ['BALD', (row) => [-row.jensenShannon, row.margin]],
];

describe('the queue', () => {
  it.each(ORDERS)(
    '%s: ordered over all pages, each question once, one in five from the audit',
    async (strategy, key) => {
      const nodes = await all({ strategy, first: 13 });
      expect(new Set(nodes.map(({ id }) => id)).size).toBe(nodes.length);
      const chosen = nodes.filter(({ audit }) => !audit);
      const audits = nodes.length - chosen.length;
      const expected = texts(300).filter((text) => splitOf(splitGroup(text)) === 'train').length;
      expect(chosen.length).toBeLessThanOrEqual(expected);
      expect(chosen.every(({ split }) => split === 'train')).toBe(true);
      const keys = chosen.map((row) => key(row));
      const sorted = [...keys].sort((a, b) => a[0]! - b[0]! || (a[1] ?? 0) - (b[1] ?? 0));
      expect(keys).toEqual(sorted);
      const mixed = Math.min(audits, Math.floor(chosen.length / 4));
      for (let i = 0; i < mixed * 5; i++) expect(nodes[i]!.audit).toBe(i % 5 === 4);
      expect(await review.count('tiny', { strategy })).toBe(nodes.length);
    },
  );

  it('DIVERSE, and no strategy: unlike each other, each question once over all pages, the audit among them', async () => {
    await service.get(ActivationService).activate('tiny', 1);
    for (const strategy of ['DIVERSE', 'DIVERSE', null] as const) {
      const nodes = await all({ strategy, first: 13 });
      expect(new Set(nodes.map(({ id }) => id)).size).toBe(nodes.length);
      const chosen = nodes.filter(({ audit }) => !audit);
      expect(chosen.length).toBeGreaterThan(100);
      expect(chosen.every(({ split }) => split === 'train')).toBe(true);
      // Not the order of any column.
      const margins = chosen.map(({ margin }) => margin);
      expect(margins).not.toEqual([...margins].sort((a, b) => a - b));
      await review.label(chosen[0]!.id, ['positive'], 'anna');
    }
    // A page goes on where the one before ended, although its last question was answered meanwhile.
    const { edges, pageInfo } = await review.queue('tiny', { strategy: 'DIVERSE', first: 3 });
    await review.label(edges.at(-1)!.node.id, ['positive'], 'anna');
    const next = await review.queue('tiny', { strategy: 'DIVERSE', first: 3, after: pageInfo.endCursor });
    const ids = [...edges, ...next.edges].map(({ node }) => node.id);
    expect(new Set(ids).size).toBe(6);
  });

  it('begins, before there is a label, with unlike texts by turns of the predicted labels, where no strategy is named', async () => {
    const source = service.get(DataSource);
    // Of few texts something rarer is predicted, and there the model is sure.
    const few = await source.query(
      `SELECT id FROM candidate WHERE split = 'train' AND NOT audit ORDER BY margin DESC LIMIT 12`,
    );
    for (const [i, { id }] of few.entries()) {
      const label = i < 4 ? 'rare' : 'some';
      await source.query(
        `UPDATE candidate SET predicted_label = $2, prediction = prediction || jsonb_build_object('label', $2::text) WHERE id = $1`,
        [id, label],
      );
    }
    const first = async (request: QueueRequest) =>
      (await review.queue('tiny', { first: 20, ...request })).edges.filter(({ node }) => !node.audit);
    const labelsOf = (edges: { node: CandidateRow }[]) => edges.map(({ node }) => node.predictedLabel);
    const byMargin = labelsOf(await first({ strategy: 'BREAKING_TIES' }));
    expect(new Set(byMargin)).toEqual(new Set(['positive']));
    // No model can compare texts: then they are asked as always.
    const noModel = vi.spyOn(service.get(ActivationService), 'current');
    noModel.mockRejectedValueOnce(new FewloopError('OVERLOADED', 'no memory'));
    expect(labelsOf(await first({}))).toEqual(byMargin);

    const cold = await first({});
    expect(cold).toHaveLength(16);
    const turns = labelsOf(cold);
    for (let at = 0; at < 12; at += 3) {
      expect(new Set(turns.slice(at, at + 3))).toEqual(new Set(['rare', 'some', 'positive']));
    }
    expect(turns.slice(12).filter((label) => label === 'some')).toHaveLength(2);
    expect(turns.slice(12).filter((label) => label === 'positive')).toHaveLength(2);
    expect(labelsOf(await first({ strategy: 'BREAKING_TIES' }))).toEqual(byMargin);
    expect(await review.count('tiny', {})).toBe(await review.count('tiny', { strategy: 'BREAKING_TIES' }));

    // What was leased says how it was chosen, and a page begun goes on after the first label, which ends the beginning.
    const [leased] = await review.lease('tiny', { first: 1 }, 'anna');
    await review.label(leased!.id, ['positive'], 'anna');
    const [example] = await service.get(ExamplesRepository).listSplit('tiny', 'train');
    expect(example).toMatchObject({ itemKey: leased!.itemKey, strategy: 'DIVERSE' });
    const next = await first({ after: cold[5]!.cursor });
    expect(next.map(({ node }) => node.id)).not.toContain(leased!.id);
    const idsOf = (edges: { node: CandidateRow }[]) => edges.map(({ node }) => node.id);
    expect(idsOf(await first({}))).toEqual(idsOf(await first({ strategy: 'DIVERSE' })));
    // Behind a place of the beginning too, and each question once.
    const rest = (await all({ first: 50, after: cold[5]!.cursor })).map(({ id }) => id);
    expect(new Set(rest).size).toBe(rest.length);
    const open = (await all({ strategy: 'BREAKING_TIES' })).filter(({ audit }) => !audit);
    expect(rest).toEqual(expect.arrayContaining(open.map(({ id }) => id)));
  });

  it('DIVERSE: goes on behind the texts that are compared with each other', async () => {
    await admit(texts(500, '别的'));
    await review.label((await all({ strategy: 'BREAKING_TIES' }))[0]!.id, ['positive'], 'anna');
    const nodes = await all({ first: 60 });
    expect(nodes.length).toBeGreaterThan(2 * DIVERSE_AMONG);
    expect(new Set(nodes.map(({ id }) => id))).toEqual(
      new Set((await all({ strategy: 'BREAKING_TIES' })).map(({ id }) => id)),
    );
    expect(await review.count('tiny', {})).toBe(nodes.length);
    // Who answers page by page is asked every one of the texts that were compared, each once.
    const asked: string[] = [];
    let after: string | null = null;
    while (asked.length < DIVERSE_AMONG + 20) {
      const { edges, pageInfo } = await review.queue('tiny', { first: 20, after });
      const chosen = edges.map(({ node }) => node).filter(({ audit }) => !audit);
      asked.push(...chosen.map(({ id }) => id));
      for (const { id } of chosen.slice(0, -1)) await review.label(id, ['positive'], 'anna');
      after = pageInfo.endCursor;
      // The last one by another, and only now and then.
      if (asked.length % 3 > 0) await review.label(chosen.at(-1)!.id, ['positive'], 'ben');
    }
    expect(new Set(asked).size).toBe(asked.length);
    const compared = nodes.filter(({ audit }) => !audit).slice(0, DIVERSE_AMONG);
    expect(asked).toEqual(expect.arrayContaining(compared.map(({ id }) => id)));
  });

  it('RANDOM_AUDIT: the audit slice alone, of all splits', async () => {
    const nodes = await all({ strategy: 'RANDOM_AUDIT', first: 50 });
    expect(nodes.every(({ audit }) => audit)).toBe(true);
    expect(new Set(nodes.map(({ split }) => split)).size).toBe(3);
  });

  it("asked one at a time, every fifth question is the audit's too", async () => {
    const turns: boolean[] = [];
    for (let i = 0; i < 10; i++) {
      const { edges } = await review.queue('tiny', { first: 1 });
      turns.push(edges[0]!.node.audit);
      await review.label(edges[0]!.node.id, ['positive'], 'anna');
    }
    expect(turns).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((i) => i % 5 === 4));
  });

  it('near-duplicates are one question', async () => {
    const twins = ['Ｓａｍｅ TEXT', 'same text', 'SAME  text'];
    await admit(twins);
    const nodes = await all({ strategy: 'BREAKING_TIES', first: 100 });
    const asked = nodes.filter(({ splitGroup: group }) => group === splitGroup('same text'));
    expect(asked).toHaveLength(1);
  });

  it('refuses cursors and pages that are none', async () => {
    const bad = ['x', 'e30', Buffer.from('{"strategy":"BREAKING_TIES","asked":0,"chosen":{"id":"1"},"audit":null}')];
    for (const after of bad) {
      await expect(review.queue('tiny', { after: after.toString('base64url' as never) })).rejects.toMatchObject({
        code: 'BAD_INPUT',
        field: 'after',
      });
    }
    await expect(review.queue('tiny', { first: -1 })).rejects.toMatchObject({ field: 'first' });
    await expect(review.queue('none', {})).rejects.toMatchObject({ code: 'TASK_NOT_FOUND' });
  });
});

describe('answers', () => {
  it('chosen ones are train; audit answers go to the split of their group', async () => {
    const nodes = await all({ strategy: 'BREAKING_TIES', first: 100 });
    for (const { id } of nodes) await review.label(id, ['negative'], 'anna');
    const examples = await service.get(ExamplesRepository).list('tiny');
    expect(examples).toHaveLength(nodes.length);
    for (const example of examples) {
      expect(example.split).toBe(splitOf(example.splitGroup));
      expect(example.origin === 'AUDIT' || example.split === 'train').toBe(true);
    }
    expect(new Set(examples.filter(({ origin }) => origin === 'AUDIT').map(({ split }) => split)).size).toBe(3);
    expect(await all({ first: 10 })).toEqual([]);
    // Near-duplicates are closed by the same answers, and are no examples.
    const [{ served }] = await service
      .get(DataSource)
      .query(`SELECT count(*)::int AS served FROM candidate WHERE served_by IS NOT NULL`);
    expect(await service.get(PoolService).stats('tiny')).toMatchObject({ labelled: nodes.length + served });
  });

  it('a held-out text that was not drawn is not answered', async () => {
    const [row] = await service
      .get(DataSource)
      .query(`SELECT id FROM candidate WHERE split <> 'train' AND NOT audit LIMIT 1`);
    await expect(review.label(row.id as string, ['positive'], 'anna')).rejects.toMatchObject({ code: 'CONFLICT' });
  });

  it('count once: the same again changes nothing, another one is a conflict', async () => {
    const { edges } = await review.queue('tiny', { first: 2 });
    const [one, two] = edges.map(({ node }) => node.id);
    const both = await Promise.allSettled([
      review.label(one!, ['positive'], 'a'),
      review.label(one!, ['negative'], 'b'),
    ]);
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    await expect(review.label(two!, ['nope'], 'a')).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'labels' });
    expect(await review.skip(two!, 'unclear', 'a')).toMatchObject({ state: 'SKIPPED', skipReason: 'unclear' });
    expect(await review.skip(two!, null, 'a')).toMatchObject({ skipReason: 'unclear' });
    await expect(review.label(two!, ['positive'], 'a')).rejects.toMatchObject({ code: 'CONFLICT' });
    const missing = ['00000000-0000-4000-8000-000000000000', 'x', '\0'];
    for (const id of missing) {
      await expect(review.label(id, ['positive'], 'a')).rejects.toMatchObject({ code: 'CANDIDATE_NOT_FOUND' });
    }
  });
});
