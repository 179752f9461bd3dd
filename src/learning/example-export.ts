/** Labelled texts on their way out, page by page. Imports of other modules: storage. */
import { Inject, Injectable } from '@nestjs/common';
import { badInput } from '../common/errors.js';
import { CandidatesRepository } from '../storage/candidates.repository.js';
import type { ExampleRow } from '../storage/entities/example.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { UUID } from './runs.js';

@Injectable()
export class ExampleExport {
  constructor(
    @Inject(ExamplesRepository) private readonly examples: ExamplesRepository,
    @Inject(CandidatesRepository) private readonly candidates: CandidatesRepository,
  ) {}

  /** In the order of their ids, which does not change; `after` is the last id of the page before. */
  async page(task: string, first: number, after: string | null): Promise<{ rows: ExampleRow[]; more: boolean }> {
    if (after !== null && !UUID.test(after)) throw badInput('after', 'is no cursor of this query');
    const rows = await this.examples.page(task, first + 1, after);
    return { rows: rows.slice(0, first), more: rows.length > first };
  }

  async count(task: string): Promise<number> {
    return Object.values(await this.examples.countBySplit(task)).reduce((sum, count) => sum + count, 0);
  }

  /** By item key: what was said of those that came through the pool. */
  predictions(task: string, rows: ExampleRow[]): Promise<Map<string, object>> {
    return this.candidates.predictions(
      task,
      rows.map(({ itemKey }) => itemKey),
    );
  }
}
