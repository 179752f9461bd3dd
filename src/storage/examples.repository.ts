import { Inject, Injectable } from '@nestjs/common';
import { DataSource, In, IsNull, MoreThan, Not, type QueryDeepPartialEntity } from 'typeorm';
import { ExampleRow, type ExampleOrigin } from './entities/example.js';
import type { KeyedItem, SplitValue } from './entities/item-columns.js';
import { RENAMED_LABELS } from './renamed-labels.js';
import type { Tx } from './transactions.js';

export interface NewExample extends KeyedItem {
  task: string;
  /** Of the question that it answers. */
  nearGroup?: string | null;
  labels: string[];
  split: SplitValue;
  origin: ExampleOrigin;
  answeredBy: string | null;
  strategy?: string | null;
  revokedAt?: Date | null;
}

/** Who gave a label; with `revokedAt`, who is no longer trusted. */
export type LabelSource = Pick<ExampleRow, 'answeredBy' | 'strategy'> & Partial<Pick<ExampleRow, 'revokedAt'>>;

export interface LabelCount {
  split: SplitValue;
  label: string;
  count: number;
}

const INSERT_ROWS = 500;

@Injectable()
export class ExamplesRepository {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  /**
   * One writer of a task's examples at a time, until the transaction ends: a group's split is decided once, and a label
   * is stored by its name in the file that is applied.
   */
  async lockTask(task: string, tx: Tx): Promise<void> {
    await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended('examples:' || $1, 0))`, [task]);
  }

  findByKeys(task: string, itemKeys: string[], tx?: Tx): Promise<ExampleRow[]> {
    return (tx ?? this.dataSource.manager).findBy(ExampleRow, { task, itemKey: In(itemKeys) });
  }

  /** Split of each group that has examples. */
  async splitsOfGroups(task: string, groups: string[], tx?: Tx): Promise<Map<string, SplitValue>> {
    const rows = await (tx ?? this.dataSource.manager).query<{ split_group: string; split: SplitValue }[]>(
      `SELECT DISTINCT split_group, split FROM example WHERE task = $1 AND split_group = ANY($2)`,
      [task, groups],
    );
    return new Map(rows.map((row) => [row.split_group, row.split]));
  }

  async insert(rows: NewExample[], tx: Tx): Promise<void> {
    for (let at = 0; at < rows.length; at += INSERT_ROWS) {
      await tx.insert(ExampleRow, rows.slice(at, at + INSERT_ROWS) as QueryDeepPartialEntity<ExampleRow>[]);
    }
  }

  /** A newer word: what was revoked of the source before takes part again, unless this one is revoked too. */
  async setLabels(
    id: string,
    labels: string[],
    origin: ExampleOrigin,
    { answeredBy, strategy, revokedAt = null }: LabelSource,
    tx: Tx,
  ): Promise<void> {
    const word = { labels, origin, answeredBy, strategy, revokedAt, updatedAt: new Date() };
    await tx.update(ExampleRow, { id }, word);
  }

  async delete(id: string, tx: Tx): Promise<void> {
    await tx.delete(ExampleRow, { id });
  }

  /** Revoked ones too: their groups stay where they are. Oldest first, and always in the same order. */
  list(task: string): Promise<ExampleRow[]> {
    return this.dataSource.manager.find(ExampleRow, { where: { task }, order: { createdAt: 'ASC', itemKey: 'ASC' } });
  }

  /** In the order of ids, after one of them; without revoked ones, as all that follow. */
  page(task: string, limit: number, after: string | null): Promise<ExampleRow[]> {
    const where = { task, revokedAt: IsNull(), ...(after === null ? {} : { id: MoreThan(after) }) };
    return this.dataSource.manager.find(ExampleRow, { where, order: { id: 'ASC' }, take: limit });
  }

  listSplit(task: string, split: SplitValue): Promise<ExampleRow[]> {
    return this.dataSource.manager.find(ExampleRow, {
      where: { task, split, revokedAt: IsNull() },
      order: { createdAt: 'ASC', itemKey: 'ASC' },
    });
  }

  countSince(task: string, moment: Date | null): Promise<number> {
    return this.dataSource.manager.countBy(ExampleRow, {
      task,
      revokedAt: IsNull(),
      ...(moment ? { updatedAt: MoreThan(moment) } : {}),
    });
  }

  countRevoked(task: string): Promise<number> {
    return this.dataSource.manager.countBy(ExampleRow, { task, revokedAt: Not(IsNull()) });
  }

  /** A row with several labels counts once for each. */
  async labelCounts(task: string, origin?: ExampleOrigin): Promise<LabelCount[]> {
    return this.dataSource.manager.query<LabelCount[]>(
      `SELECT split, label, count(*)::int AS count FROM example, unnest(labels) AS label
       WHERE task = $1 AND revoked_at IS NULL AND ($2::text IS NULL OR origin = $2) GROUP BY split, label`,
      [task, origin ?? null],
    );
  }

  /** Whether a run would have anything to learn. */
  async hasTrain(task: string): Promise<boolean> {
    return this.dataSource.manager.existsBy(ExampleRow, { task, split: 'train', revokedAt: IsNull() });
  }

  /** Train rows since the version was made, so that it learned none of them; newest first. */
  taughtSince(task: string, version: number, limit: number): Promise<ExampleRow[]> {
    return this.dataSource.manager
      .createQueryBuilder(ExampleRow, 'e')
      .where(`e.task = :task AND e.split = 'train' AND e.revokedAt IS NULL`, { task })
      .andWhere(
        `e.createdAt > (SELECT v.created_at FROM model_version v WHERE v.task = :task AND v.version = :version)`,
        { version },
      )
      .orderBy('e.createdAt', 'DESC')
      .limit(limit)
      .getMany();
  }

  async countBySplit(task: string): Promise<Record<SplitValue, number>> {
    const rows = await this.dataSource.manager.query<{ split: SplitValue; count: number }[]>(
      `SELECT split, count(*)::int AS count FROM example WHERE task = $1 AND revoked_at IS NULL GROUP BY split`,
      [task],
    );
    const counts = { train: 0, dev: 0, test: 0 };
    for (const row of rows) counts[row.split] = row.count;
    return counts;
  }

  /** Labels in use, whatever the definition says. */
  async labelsInUse(task: string, tx?: Tx): Promise<string[]> {
    const rows = await (tx ?? this.dataSource.manager).query<{ label: string }[]>(
      `SELECT DISTINCT label FROM example, unnest(labels) AS label WHERE task = $1`,
      [task],
    );
    return rows.map((row) => row.label);
  }

  async renameLabels(task: string, renames: ReadonlyMap<string, string>, tx: Tx): Promise<void> {
    for (const [from, to] of renames) {
      await tx.query(`UPDATE example SET labels = ${RENAMED_LABELS} WHERE task = $1 AND $2 = ANY(labels)`, [
        task,
        from,
        to,
      ]);
    }
  }

  async deleteGroup(task: string, splitGroup: string, tx: Tx): Promise<number> {
    return (await tx.delete(ExampleRow, { task, splitGroup })).affected ?? 0;
  }
}
