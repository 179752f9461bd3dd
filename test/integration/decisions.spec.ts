/** What people say and why, by the command through the API of the whole service, is kept as they said it. */
import { Readable } from 'node:stream';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { connect } from '../../src/storage/database.js';
import { CandidateRow } from '../../src/storage/entities/candidate.js';
import { PromotionsRepository } from '../../src/storage/promotions.repository.js';
import { VersionsRepository } from '../../src/storage/versions.repository.js';
import { runCommandAt } from '../fixtures/command.js';
import { reviewsTask } from '../fixtures/reviews.js';
import { type Service, startService } from '../fixtures/service.js';

const APPLY = 'mutation ($definition: String!) { applyTask(definition: $definition) { name } }';
const INGEST = `mutation ($inputs: [TextInput!]!) { ingest(task: "reviews", inputs: $inputs) { accepted } }`;
const WAITING = '{ reviewQueue(task: "reviews") { totalCount } }';
const WHAT = ['送货', '客服', '颜色', '味道', '尺码', '音质', '屏幕', '电池', '价格', '做工', '说明书', '退款'];

let service: Service;
let dataSource: DataSource;

beforeAll(async () => {
  service = await startService();
  dataSource = await connect(service.shared['DATABASE_URL']!);
  await service.request(APPLY, { definition: reviewsTask('reviews') });
});
afterAll(async () => {
  await dataSource?.destroy();
  await service?.close();
});

it('the rejection of a promotion, with its comment', async () => {
  const versions = new VersionsRepository(dataSource);
  const { createdAt: _created, activatedAt: _activated, ...first } = (await versions.find('reviews', 1))!;
  await versions.insert({ ...first, version: 2, digest: 'another', state: 'CANDIDATE' });
  const comparison = { championVersion: 1, verdict: 'BETTER', report: {} } as const;
  const { id } = await new PromotionsRepository(dataSource).insert({ task: 'reviews', version: 2, ...comparison });
  const rejected = await runCommandAt(service.url, 'reject', id, '--comment', '答得奇怪');
  expect(rejected).toEqual({ code: 0, out: 'reviews: version 2 REJECTED, now REJECTED\n', err: '' });
  const { out } = await runCommandAt(service.url, '--json', 'promotions', 'reviews');
  expect(JSON.parse(out)).toMatchObject([
    {
      id,
      decision: 'REJECTED',
      decidedBy: expect.any(String),
      decidedAt: expect.any(String),
      comment: '答得奇怪',
      version: { version: 2, state: 'REJECTED' },
      champion: { version: 1 },
    },
  ]);
  const again = await runCommandAt(service.url, '--json', 'reject', id, '--comment', 'once more');
  expect([again.code, JSON.parse(again.out)]).toMatchObject([1, { error: { code: 'CONFLICT' } }]);
});

it('the skip of a question, with its reason', async () => {
  const inputs = WHAT.map((what, i) => ({ text: `${what}${'真不错'.repeat(i % 3)}，${what}怎么样` }));
  await service.request(INGEST, { inputs });
  const waiting = async () => (await service.request<{ reviewQueue: { totalCount: number } }>(WAITING)).reviewQueue;
  await expect.poll(waiting, { timeout: 30_000 }).toMatchObject({ totalCount: expect.toSatisfy((n) => n >= 2) });
  const lines = Readable.from(['s 看不出来\ns\nq\n']) as typeof process.stdin;
  const stdin = vi.spyOn(process, 'stdin', 'get').mockReturnValue(lines);
  const { code, out } = await runCommandAt(service.url, '--json', 'label', 'reviews').finally(() =>
    stdin.mockRestore(),
  );
  expect([code, JSON.parse(out) as object]).toEqual([0, { answered: 0, skipped: 2, undone: 0 }]);
  const skipped = await dataSource.manager.find(CandidateRow, {
    where: { state: 'SKIPPED' },
    order: { answeredAt: 'ASC' },
  });
  expect(skipped.map(({ skipReason }) => skipReason)).toEqual(['看不出来', null]);
});
