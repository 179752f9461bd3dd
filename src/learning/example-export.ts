/** Labelled texts on their way out, page by page. Imports of other modules: storage. */
import { Inject, Injectable } from '@nestjs/common';
import { badInput } from '../common/errors.js';
import type { ExampleRow } from '../storage/entities/example.js';
import { ExamplesRepository } from '../storage/examples.repository.js';
import { UUID } from './runs.js';

@Injectable()
export class ExampleExport {
  constructor(@Inject(ExamplesRepository) private readonly examples: ExamplesRepository) {}

  /** In the order of their ids, which does not change; `after` is the last id of the page before. */
  async page(
    task: string,
    first: number,
    after: string | null,
  ): Promise<{ rows: ExampleRow[]; more: boolean; total: number }> {
    if (after !== null && !UUID.test(after)) throw badInput('after', 'is no cursor of this query');
    const rows = await this.examples.page(task, first + 1, after);
    const total = Object.values(await this.examples.countBySplit(task)).reduce((sum, count) => sum + count, 0);
    return { rows: rows.slice(0, first), more: rows.length > first, total };
  }
}
