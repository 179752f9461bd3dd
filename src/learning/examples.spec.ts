import { expect, it } from 'vitest';
import type { ExamplesRepository, LabelCount } from '../storage/examples.repository.js';
import { ExampleService } from './examples.js';

it('counts examples by label, one that is called as what every object has among them', async () => {
  const counts: LabelCount[] = [
    { split: 'train', label: 'constructor', count: 2 },
    { split: 'test', label: 'constructor', count: 1 },
    { split: 'train', label: 'good', count: 4 },
  ];
  const none = {} as never;
  const repository = {
    countBySplit: async () => ({ train: 6, dev: 0, test: 1 }),
    labelCounts: async () => counts,
    countRevoked: async () => 0,
  } as unknown as ExamplesRepository;
  const examples = new ExampleService(none, none, none, repository, none, none, none);
  expect((await examples.stats('a')).byLabel).toEqual({ constructor: 3, good: 4 });
});
